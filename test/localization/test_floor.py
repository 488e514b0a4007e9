"""A floor is learned from poses alone, sharpens poses on it, and leaves others as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Frame, PoseEstimate, SceneError
from localizer_ros.localization.floor import Floor, FrontEndOnFloor, floor_of, on_floor
from localizer_ros.localization.front_end import Observation
from localizer_ros.scene.arrays import save_arrays
from localizer_ros.scene.bundle import Scene

TILT_RAD, HEAVE_M = 0.004, 0.003
CAMERA = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)


class Robot:
    """Drives on a floor that is askew in the map, with a camera that is askew on it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.T_map_floor = SE3.exp(rng.normal(0.0, 1.0, 6))
        self.T_base_cam = SE3.exp(rng.normal(0.0, 1.0, 6))

    def pose(self, heading_rad: float | None = None) -> SE3:
        rng = self._rng
        yaw = float(rng.uniform(0.0, 6.28)) if heading_rad is None else heading_rad
        turn = Rotation.from_euler("ZYX", [yaw, *rng.normal(0.0, TILT_RAD, 2)]).as_matrix()
        at = np.array([*rng.uniform(-5.0, 5.0, 2), rng.normal(0.0, HEAVE_M)])
        return self.T_map_floor @ SE3(turn, at) @ self.T_base_cam

    def floor(self) -> Floor:
        found = Floor.of([self.pose() for _ in range(300)])
        assert found is not None
        return found


def noise(rng: np.random.Generator) -> Array:
    """A covariance with sigmas of centimetres and a degree, all correlated."""
    A = rng.normal(0.0, 1.0, (6, 6)) @ np.diag(rng.uniform(0.3, 1.0, 6))
    scale = np.diag(np.repeat([0.01, 0.03], 3))
    return np.asarray(scale @ (0.3 * A @ A.T + 0.5 * np.eye(6)) @ scale)


def estimate(rng: np.random.Generator, T: SE3) -> PoseEstimate:
    covariance = noise(rng)
    error = np.linalg.cholesky(covariance) @ rng.standard_normal(6)
    return PoseEstimate(0, T @ SE3.exp(error), covariance, "test")


def test_a_floor_is_learned_without_knowing_where_down_is(rng: np.random.Generator) -> None:
    robot = Robot(rng)
    floor = robot.floor()
    for T in (robot.pose() for _ in range(20)):
        assert np.linalg.norm(T.R @ floor.up_cam - floor.up_map) < 5 * TILT_RAD
    # The camera is not over the middle of the robot: tilts move it, too.
    assert 0.5 * TILT_RAD < floor.sigma_rad < 1.5 * TILT_RAD
    assert 0.5 * HEAVE_M < floor.sigma_m < 5 * HEAVE_M


def test_poses_on_the_floor_get_better_and_stay_honest(rng: np.random.Generator) -> None:
    robot = Robot(rng)
    floor = robot.floor()
    before, after, squared = [], [], []
    for _ in range(300):
        T = robot.pose()
        raw = estimate(rng, T)
        found = floor.on_floor(raw)
        error = (found.T_map_cam.inverse() @ T).log()
        before.append(raw.T_map_cam.distance_to(T))
        after.append(found.T_map_cam.distance_to(T))
        squared.append(error @ np.linalg.solve(found.covariance, error))
        assert np.all(np.linalg.eigvalsh(raw.covariance - found.covariance) > -1e-9)
    assert np.mean(np.square(after)) < 0.8 * np.mean(np.square(before))
    # Six degrees of freedom.
    assert 3.5 < np.mean(squared) < 7.0


def test_another_floor_a_ramp_or_a_hand_held_camera_is_left_alone(rng: np.random.Generator) -> None:
    robot = Robot(rng)
    floor = robot.floor()
    sharp = np.diag(np.repeat([0.002**2, 0.005**2], 3))
    up = SE3(np.eye(3), 0.5 * floor.up_map)
    for T in (up @ robot.pose(), robot.pose() @ SE3.exp([0.3, 0.2, 0.3, 0, 0, 0])):
        pose = PoseEstimate(0, T, sharp, "test")
        assert floor.on_floor(pose) is pose and floor.excludes(pose)
        vague = replace(pose, covariance=1e4 * sharp)
        assert not floor.excludes(vague)
    assert floor.on_floor(replace(pose, covariance=None)).covariance is None
    held = Floor.of([T @ SE3.exp(rng.normal(0.0, 0.3, 6)) for T in (robot.pose() for _ in range(100))])
    assert held is not None
    pose = estimate(rng, robot.pose())
    assert held.on_floor(pose).T_map_cam.distance_to(pose.T_map_cam) < 0.02


@pytest.mark.parametrize("count", [0, 5, 100])
def test_without_turns_there_is_no_floor(rng: np.random.Generator, count: int) -> None:
    robot = Robot(rng)
    assert Floor.of([robot.pose(heading_rad=float(rng.uniform(0.0, 0.7))) for _ in range(count)]) is None


class Scripted:
    """Answers what it was made with, and records what it was told to look around."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.priors: list[PoseEstimate | None] = []

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        self.priors.append(prior)
        return self.observation

    def reset(self) -> None: ...

    def lost(self) -> None: ...

    def close(self) -> None: ...


def test_answers_and_priors_are_on_the_floor_and_impossible_ones_are_none(rng: np.random.Generator) -> None:
    robot = Robot(rng)
    floor = robot.floor()
    frame = Frame(0, np.zeros((6, 8), np.uint8), CAMERA)
    sharp = np.diag(np.repeat([0.002**2, 0.005**2], 3))
    good = estimate(rng, robot.pose())
    tipped = PoseEstimate(0, robot.pose() @ SE3.exp([0.3, 0.2, 0.3, 0.0, 0.0, 0.0]), sharp, "test")
    script = Scripted(Observation(good, late=(tipped, good)))
    front_end = FrontEndOnFloor(script, floor)
    seen = front_end.observe(frame, good)
    expected = floor.on_floor(good).T_map_cam.matrix()
    for pose in (seen.absolute, *seen.late, script.priors[0]):
        np.testing.assert_array_equal(pose.T_map_cam.matrix(), expected)
    assert len(seen.late) == 1
    script.observation = Observation(tipped)
    refused = front_end.observe(frame, None)
    assert refused.absolute is None and "planar" in refused.reason
    assert script.priors[1] is None
    script.observation = Observation(reason="blind")
    assert front_end.observe(frame, None).reason == "blind"


@pytest.mark.parametrize(
    ("file", "key"), [("index/images.npz", "T_map_cam"), ("networks/baseline.npz", "poses")]
)
def test_scenes_with_a_map_and_with_networks_know_their_floor(
    rng: np.random.Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, key: str
) -> None:
    robot = Robot(rng)
    scene, front_end = Scene(tmp_path, {}), Scripted(Observation())
    assert on_floor(front_end, scene, planar=True) is front_end
    assert "planar" in caplog.text
    poses = [robot.pose() for _ in range(50)]
    (tmp_path / file).parent.mkdir()
    save_arrays(tmp_path / file, **{key: np.stack([T.matrix()[:3] for T in poses])})
    floor = floor_of(scene)
    assert floor is not None
    assert not floor.excludes(estimate(rng, robot.pose()))
    assert on_floor(front_end, scene, planar=False) is front_end
    assert isinstance(on_floor(front_end, scene, planar=True), FrontEndOnFloor)
    np.savez(tmp_path / file, **{key: np.zeros((3, 3, 4))})
    with pytest.raises(SceneError, match=Path(file).name):
        floor_of(scene)
