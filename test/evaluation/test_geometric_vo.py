"""Geometric odometry: rotation, direction of translation, and no length."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.evaluation.geometric_vo import GeometricMotion, GeometricVo, fit_rotation

CAMERA = Camera.pinhole(320, 240, 250.0, 250.0, 159.5, 119.5)
PERIOD_NS = 50_000_000


@pytest.fixture(scope="module")
def drive() -> SimulatedSource:
    world = {"duration_s": 2.0, "fps": 12.0, "width_px": 320, "height_px": 240, "moving_objects": 0}
    return SimulatedSource(config_from_dict(WorldConfig, world))


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(b), -1.0, 1.0))))


def test_rotation_and_direction_in_a_simulated_room(drive: SimulatedSource) -> None:
    vo = GeometricVo()
    truth = {r.stamp_ns: r.T_map_cam for r in drive.records}
    motions = [vo.observe(drive.read(i)) for i in range(len(drive.records))]
    assert motions[0] is None and None not in motions[1:]
    turns, directions = [], []
    for record, motion in zip(drive.records[1:], motions[1:], strict=True):
        assert motion is not None and motion.stamp_cur_ns == record.stamp_ns
        key, cur = truth[motion.stamp_key_ns], truth[record.stamp_ns]
        assert key is not None and cur is not None
        T_key_cur = key.inverse() @ cur
        turns.append(np.degrees(T_key_cur.angle_to(motion.scaled(0.0))))
        if motion.direction is not None:
            assert np.linalg.norm(motion.direction) == pytest.approx(1.0)
            directions.append(degrees_between(motion.direction, T_key_cur.t))
    # A pixel is 0.18 degrees here, and the robot moves 5 cm between frames.
    assert np.median(turns) < 0.1 and max(turns) < 0.6
    assert len(directions) > 10 and np.median(directions) < 6.0


def turned_views(rng: np.random.Generator, rotations: list[np.ndarray]) -> list[Frame]:
    """What a camera sees that only turns: views of a far, textured surface."""
    texture = sum(
        cv2.resize(
            rng.normal(0, 1, (480 // s, 640 // s)).astype(np.float32),
            (640, 480),
            interpolation=cv2.INTER_CUBIC,
        )
        for s in (2, 4, 8, 16)
    )
    image = np.clip(128 + 30 * np.asarray(texture), 0, 255).astype(np.uint8)
    middle = np.array([[1.0, 0.0, 160.0], [0.0, 1.0, 120.0], [0.0, 0.0, 1.0]])
    frames = []
    for index, R in enumerate(rotations):
        view_to_texture = middle @ CAMERA.K @ R @ np.linalg.inv(CAMERA.K)
        view = cv2.warpPerspective(
            image, view_to_texture, (320, 240), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        frames.append(Frame((index + 1) * PERIOD_NS, view, CAMERA))
    return frames


def rotation(w_deg: list[float]) -> np.ndarray:
    return SE3.exp([*np.radians(w_deg), 0.0, 0.0, 0.0]).R


def test_a_camera_that_only_turns_has_no_direction(rng: np.random.Generator) -> None:
    rotations = [rotation([0.3 * i, -1.5 * i, 0.5 * i]) for i in range(8)]
    vo = GeometricVo()
    for i, frame in enumerate(turned_views(rng, rotations)):
        motion = vo.observe(frame)
        if i == 0:
            assert motion is None
            continue
        assert motion is not None and motion.direction is None
        key = motion.stamp_key_ns // PERIOD_NS - 1
        error = SE3(rotations[key].T @ rotations[i], np.zeros(3)).angle_to(motion.scaled(1.0))
        assert np.degrees(error) < 0.02
        assert np.array_equal(motion.scaled(1.0).t, np.zeros(3))


def test_motion_is_none_without_corners_to_track(rng: np.random.Generator) -> None:
    frames = turned_views(rng, [np.eye(3)] * 3)
    blank = [Frame(f.stamp_ns + 10 * PERIOD_NS, np.full((240, 320), 90, np.uint8), CAMERA) for f in frames]
    vo = GeometricVo()
    assert vo.observe(frames[0]) is None
    assert vo.observe(frames[1]) is not None
    assert [vo.observe(f) for f in blank] == [None] * 3
    later = [Frame(f.stamp_ns + 20 * PERIOD_NS, f.image, CAMERA) for f in frames]
    # The view before was blank: what is seen now starts a keyframe of its own.
    assert vo.observe(later[0]) is None
    assert vo.observe(later[1]) is not None
    vo.reset()
    assert vo.observe(Frame(30 * PERIOD_NS, frames[0].image, CAMERA)) is None


def test_another_camera_starts_a_new_keyframe(rng: np.random.Generator) -> None:
    frames = turned_views(rng, [np.eye(3)] * 2)
    vo = GeometricVo()
    vo.observe(frames[0])
    other = Camera.pinhole(320, 240, 300.0, 300.0, 159.5, 119.5)
    assert vo.observe(Frame(frames[1].stamp_ns, frames[1].image, other)) is None


def test_fit_rotation_is_robust_to_wrong_rays(rng: np.random.Generator) -> None:
    R = rotation([4.0, -6.0, 10.0])
    cur = np.pad(rng.uniform(-0.5, 0.5, (300, 2)), ((0, 0), (0, 1)), constant_values=1.0)
    key = cur @ R.T
    key /= key[:, 2:]
    cur[:60, :2] += rng.normal(0.0, 0.1, (60, 2))
    found, error_px = fit_rotation(key, cur, 500.0, np.eye(3))
    assert np.degrees(SE3(R, np.zeros(3)).angle_to(SE3(found, np.zeros(3)))) < 0.02
    assert np.median(error_px[60:]) < 0.2 and np.median(error_px[:60]) > 10.0


def test_length_scales_the_direction() -> None:
    direction = np.array([0.6, 0.0, 0.8])
    motion = GeometricMotion(0, 1, np.eye(3), direction, 100, 3.0)
    assert motion.scaled(2.0).t == pytest.approx([1.2, 0.0, 1.6])
