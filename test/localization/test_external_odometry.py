"""External odometry: the camera's motion from the robot's, and what fusing it with visual odometry is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from localizer_ros.core.config.runtime import LocalizerConfig, OdometryConfig, StatusConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Camera, Frame, PoseEstimate, RelativePose
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.evaluation.run_localizer import OdometryFeed
from localizer_ros.localization.external_odometry import ExternalOdometry
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.localizer import Localizer
from localizer_ros.smoothing import open_smoother

LIGHT_S, DARK_S, FPS = 0.5, 4.0, 15.0
# Errors of a motion between frames: rotation (rad), translation (m).
VISUAL = np.repeat([np.radians(0.06), 0.003], 3)
SHARP = np.diag(np.repeat([np.radians(0.2) ** 2, 0.005**2], 3))


class Scripted:
    """Absolute poses at first, then none; motions with white noise, or none."""

    def __init__(self, drive: SimulatedSource, visual: bool, rng: np.random.Generator) -> None:
        self.drive, self.visual, self.rng = drive, visual, rng
        self.index = -1

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        self.index += 1
        record = self.drive.records[self.index]
        relative = absolute = None
        error = SE3.exp(self.rng.normal(0.0, VISUAL))
        assert record.T_map_cam is not None
        if self.index < LIGHT_S * FPS:
            absolute = PoseEstimate(record.stamp_ns, record.T_map_cam, SHARP, "test")
        if self.visual and self.index > 0:
            before = self.drive.records[self.index - 1]
            assert before.T_map_cam is not None
            T_prev_cur = before.T_map_cam.inverse() @ record.T_map_cam @ error
            relative = RelativePose(before.stamp_ns, record.stamp_ns, T_prev_cur, np.diag(VISUAL**2), "vo")
        return Observation(absolute=absolute, relative=relative)

    def lost(self) -> None:
        raise AssertionError("lost")

    def reset(self) -> None: ...

    def close(self) -> None:
        pass


def end_error(drive: SimulatedSource, visual: bool, wheels: bool, seed: int) -> tuple[float, float]:
    """Metres and degrees by which the localizer is off after a time without absolute poses."""
    status = StatusConfig(lost_after_s=60.0)
    config = LocalizerConfig(odometry=OdometryConfig(use=wheels), status=status)
    front_end = Scripted(drive, visual, np.random.default_rng(seed))
    localizer = Localizer(front_end, open_smoother(config.smoother), config)
    camera = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
    feed = OdometryFeed(drive)
    for record in drive.records:
        feed.feed(localizer, record.stamp_ns)
        output = localizer.process(
            Frame(record.stamp_ns, np.zeros((6, 8), np.uint8), camera, T_base_cam=drive.T_base_cam)
        )
    assert {m.source for m in output.motions} == {*(["vo"] * visual), *(["odom"] * wheels)}
    assert output.estimate is not None and record.T_map_cam is not None
    found, true = output.estimate.T_map_cam, record.T_map_cam
    return true.distance_to(found), float(np.degrees(true.angle_to(found)))


SECOND = 1_000_000_000


def driven(index: int) -> SE3:
    """``T_odom_base`` of a drive along an arc, ten samples a second."""
    return SE3.exp(np.multiply([0.0, 0.0, 0.05, 0.1, 0.0, 0.0], index))


def odometry(count: int = 20, **settings: float) -> ExternalOdometry:
    opened = ExternalOdometry(OdometryConfig(**settings))
    for index in range(count):
        opened.add(index * SECOND // 10, driven(index))
    return opened


def test_the_motion_of_a_camera_that_turns_on_the_robot_is_that_between_its_poses(
    rng: np.random.Generator,
) -> None:
    T_base_prev, T_base_cur = (SE3.exp(rng.normal(0.0, 0.5, 6)) for _ in range(2))
    motion = odometry().motion(SECOND // 2, SECOND, T_base_prev, T_base_cur)
    assert motion is not None and motion.source == "odom"
    assert (motion.stamp_prev_ns, motion.stamp_cur_ns) == (SECOND // 2, SECOND)
    expected = (driven(5) @ T_base_prev).inverse() @ driven(10) @ T_base_cur
    np.testing.assert_allclose(motion.T_prev_cur.matrix(), expected.matrix(), atol=1e-12)


def test_the_covariance_of_a_motion_is_that_of_the_robot_seen_from_the_camera(
    rng: np.random.Generator,
) -> None:
    T_base_cam = SE3.exp([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    settings = {"floor_deg": 0.1, "floor_m": 0.01, "rotation_share": 0.1, "translation_share": 0.2}
    motion = odometry(**settings).motion(0, SECOND // 10, T_base_cam, T_base_cam)
    assert motion is not None
    sigma_rad = np.radians(0.1) + 0.1 * driven(1).angle_to(SE3.identity())
    sigma_m = 0.01 + 0.2 * np.linalg.norm(driven(1).t)
    noise = rng.normal(0.0, np.repeat([sigma_rad, sigma_m], 3), (20_000, 6))
    true = T_base_cam.inverse() @ driven(1) @ T_base_cam
    seen = [T_base_cam.inverse() @ driven(1) @ SE3.exp(n) @ T_base_cam for n in noise]
    errors = np.array([(true.inverse() @ T).log() for T in seen])
    # 20 000 samples know a variance to 1 %; first-order propagation is exact here but for the rotation's curvature.
    np.testing.assert_allclose(np.cov(errors.T), motion.covariance, atol=0.03 * motion.covariance.max())


@pytest.mark.parametrize(("prev_ns", "cur_ns"), [(-1, 10), (0, 3 * SECOND)])
def test_there_is_no_motion_where_the_samples_do_not_reach(prev_ns: int, cur_ns: int) -> None:
    assert odometry().motion(prev_ns, cur_ns, SE3.identity(), SE3.identity()) is None


def test_there_is_no_motion_across_a_hole_in_the_samples() -> None:
    opened = odometry(5)
    opened.add(2 * SECOND, driven(20))
    assert opened.motion(0, SECOND, SE3.identity(), SE3.identity()) is None
    assert opened.motion(0, SECOND // 5, SE3.identity(), SE3.identity()) is not None


def test_the_last_rate_goes_on_for_a_moment_after_the_last_sample() -> None:
    motion = odometry(11).motion(0, SECOND + SECOND // 20, SE3.identity(), SE3.identity())
    assert motion is not None
    # Rotation goes on exactly; the origin goes on straight, which over 5 cm of this arc is a millimetre.
    assert motion.T_prev_cur.distance_to(SE3.exp(np.multiply([0.0, 0.0, 0.05, 0.1, 0.0, 0.0], 10.5))) < 2e-3


def test_a_clock_that_steps_back_starts_the_samples_over() -> None:
    opened = odometry()
    opened.add(0, SE3.identity())
    assert opened.motion(0, SECOND, SE3.identity(), SE3.identity()) is None


@pytest.mark.parametrize(
    "to", [SE3.exp([0, 0, 1.0, -2.0, 0, 0]), SE3.exp([0, 0, 0, 0.5, 0, 0])], ids=["reset", "half a metre"]
)
def test_no_motion_leads_over_a_jump_and_it_is_told_once(to: SE3) -> None:
    opened = odometry(21)
    for index in range(5):
        opened.add(2 * SECOND + (index + 1) * SECOND // 10, driven(20) @ to @ driven(index))
    said = opened.take_problem()
    assert said.startswith("odometry jumps by")
    assert opened.motion(2 * SECOND, 2 * SECOND + 3 * SECOND // 10, SE3.identity(), SE3.identity()) is None
    after = opened.motion(
        2 * SECOND + 2 * SECOND // 10, 2 * SECOND + 4 * SECOND // 10, SE3.identity(), SE3.identity()
    )
    assert after is not None and after.T_prev_cur.distance_to(driven(2)) < 1e-9
    assert opened.take_problem() == ""


def test_a_sample_that_is_not_finite_is_left_out_and_told() -> None:
    opened = odometry(11)
    opened.add(SECOND + SECOND // 20, SE3(np.eye(3), np.full(3, np.nan)))
    assert opened.take_problem() == "odometry is not finite"
    motion = opened.motion(0, SECOND, SE3.identity(), SE3.identity())
    assert motion is not None and np.all(np.isfinite(motion.T_prev_cur.matrix()))


def sigma_m(covariances: Callable[[int], Array | None]) -> float:
    """Of the motion of a second, with a covariance at each sample."""
    opened = ExternalOdometry(OdometryConfig())
    for index in range(11):
        opened.add(index * SECOND // 10, driven(index), covariances(index))
    motion = opened.motion(0, SECOND, SE3.identity(), SE3.identity())
    assert motion is not None
    return float(np.sqrt(np.linalg.eigvalsh(motion.covariance[3:, 3:])[-1]))


def test_the_odometrys_own_covariance_counts_where_it_grows_by_more_than_is_assumed() -> None:
    assumed = sigma_m(lambda index: None)
    for constant in (1e-6, 1.0, 1e6):
        assert sigma_m(lambda index, S=constant: S * np.eye(6)) == assumed  # type: ignore[misc]
    # As dead reckoning adds it up: 0.1 m and 0.01 rad a step.
    step = np.diag([1e-4] * 3 + [1e-2] * 3)
    added = [1e-6 * np.eye(6)]
    for _ in range(10):
        added.append(compose_covariance(added[-1], driven(1), step))
    assert sigma_m(lambda index: added[index]) == pytest.approx(np.sqrt(10) * 0.1, rel=0.05)
    little = [S * 1e-8 for S in added]
    assert sigma_m(lambda index: little[index]) == pytest.approx(assumed)


def test_fused_motions_are_better_than_either_alone() -> None:
    drives = [
        SimulatedSource(
            config_from_dict(WorldConfig, {"drive": n, "duration_s": LIGHT_S + DARK_S, "fps": FPS})
        )
        for n in range(10)
    ]
    errors = {
        name: np.sqrt(
            np.mean([np.square(end_error(d, *which, seed)) for seed, d in enumerate(drives)], axis=0)
        )
        for name, which in {"visual": (True, False), "wheels": (False, True), "fused": (True, True)}.items()
    }

    # Of two errors alike in size and independent, the mean has 0.7 of each.
    assert np.all(errors["fused"] < 0.9 * np.minimum(errors["visual"], errors["wheels"]))
