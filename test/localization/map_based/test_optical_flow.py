"""Points of a localised frame in the next ones, and the motion that follows."""

import cv2
import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, Index
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.map_based import optical_flow
from localizer_ros.localization.map_based.optical_flow import OpticalFlow

CAMERA = Camera.pinhole(320, 240, 250.0, 250.0, 159.5, 119.5)
DEPTH_M = 2.0
FRAME_NS = 33_333_333


@pytest.fixture
def wall(rng: np.random.Generator) -> np.ndarray:
    """A textured wall, larger than the image."""
    noise = cv2.GaussianBlur(rng.normal(size=(400, 500)), (0, 0), 2.0)
    return np.clip(128.0 + 300.0 * noise, 0, 255).astype(np.uint8)


def frame(wall: np.ndarray, index: int, shift_px: float = 3.0) -> Frame:
    """The camera moves along the wall: the image shifts against it."""
    moved = np.array([[1.0, 0.0, -80.0 - shift_px * index], [0.0, 1.0, -80.0]])
    image = cv2.warpAffine(wall, moved, (320, 240), flags=cv2.INTER_LINEAR)
    return Frame(index * FRAME_NS, np.asarray(image, np.uint8), CAMERA)


def anchored(wall: np.ndarray) -> OpticalFlow:
    flow = OpticalFlow(RayCamera(CAMERA))
    x, y = np.meshgrid(np.arange(40.0, 280.0, 20.0), np.arange(40.0, 200.0, 20.0))
    xy = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    rays = RayCamera(CAMERA).rays(CAMERA, xy)
    flow.anchor(frame(wall, 0), xy, rays, np.full(len(xy), DEPTH_M), np.arange(len(xy)), np.zeros(len(xy)))
    return flow


def test_the_motion_is_that_of_the_camera(wall: np.ndarray) -> None:
    motion = anchored(wall).follow(frame(wall, 1))
    assert motion is not None and motion.share > 0.95
    expected = SE3(np.eye(3), np.array([3.0 / 250.0 * DEPTH_M, 0.0, 0.0]))
    assert motion.T_prev_cur.distance_to(expected) < 2e-3
    assert motion.T_prev_cur.angle_to(expected) < 1e-3
    assert np.allclose(motion.rays, RayCamera(CAMERA).rays(CAMERA, motion.xy_px))


def test_nothing_is_followed_into_another_image_or_camera(wall: np.ndarray) -> None:
    flow = anchored(wall)
    blank = Frame(FRAME_NS, np.full((240, 320), 90, np.uint8), CAMERA)
    assert flow.follow(blank) is None
    wider = Camera.pinhole(320, 240, 200.0, 200.0, 159.5, 119.5)
    assert flow.follow(Frame(FRAME_NS, frame(wall, 1).image, wider)) is None
    assert flow.follow(frame(wall, 1)) is not None
    flow.reset()
    assert flow.stamp_ns is None
    assert flow.follow(frame(wall, 1)) is None


def moved_m(shift_px: float) -> SE3:
    """The camera's motion along the wall that shifts the image by so much."""
    return SE3(np.eye(3), np.array([shift_px / 250.0 * DEPTH_M, 0.0, 0.0]))


@pytest.mark.parametrize("wrong_px", [0.0, 4.0, -30.0, 200.0])
def test_a_motion_that_is_not_as_expected_is_found_all_the_same(wall: np.ndarray, wrong_px: float) -> None:
    motion = anchored(wall).follow(frame(wall, 1), moved_m(3.0 + wrong_px))
    assert motion is not None and motion.share > 0.95
    assert motion.T_prev_cur.distance_to(moved_m(3.0)) < 2e-3


def test_a_long_way_is_found_where_it_is_expected(wall: np.ndarray) -> None:
    far = frame(wall, 1, shift_px=75.0)
    alone, expected = anchored(wall).follow(far), anchored(wall).follow(far, moved_m(72.0))
    assert expected is not None and expected.T_prev_cur.distance_to(moved_m(75.0)) < 0.02
    assert alone is None or alone.share < expected.share


def test_the_best_points_are_followed_and_more_where_many_of_them_are_lost(
    wall: np.ndarray, rng: np.random.Generator
) -> None:
    flow, camera = OpticalFlow(RayCamera(CAMERA)), RayCamera(CAMERA)
    xy = rng.uniform([40.0, 40.0], [280.0, 200.0], (400, 2)).astype(np.float32)
    error_px = rng.uniform(0.0, 4.0, 400)

    def follow(image: Frame) -> Index:
        flow.anchor(
            frame(wall, 0), xy, camera.rays(CAMERA, xy), np.full(400, DEPTH_M), np.arange(400), error_px
        )
        motion = flow.follow(image, moved_m(3.0))
        assert motion is not None and motion.T_prev_cur.distance_to(moved_m(3.0)) < 5e-3
        return motion.map_point

    followed = follow(frame(wall, 1))
    assert set(followed) <= set(np.argsort(error_px)[: optical_flow._BEST_POINTS])
    # There is time for more after a long pause.
    late = Frame(10 * FRAME_NS, frame(wall, 1).image, CAMERA)
    assert len(follow(late)) > optical_flow._BEST_POINTS
    # A third of the image is covered.
    whole = frame(wall, 1)
    image = whole.image.copy()
    image[:, :110] = 90
    assert len(follow(Frame(whole.stamp_ns, image, CAMERA))) > 1.2 * len(followed) * 170 / 240


def test_a_motion_of_the_best_points_counts_where_more_of_them_show_none(
    wall: np.ndarray, rng: np.random.Generator
) -> None:
    flow, camera = OpticalFlow(RayCamera(CAMERA)), RayCamera(CAMERA)
    # A quarter of the points fit best, and something else covers all others.
    xy = rng.uniform([40.0, 40.0], [95.0, 200.0], (100, 2))
    xy = np.concatenate([xy, rng.uniform([130.0, 40.0], [280.0, 200.0], (300, 2))]).astype(np.float32)
    error_px = np.concatenate([np.zeros(100), np.ones(300)])
    flow.anchor(frame(wall, 0), xy, camera.rays(CAMERA, xy), np.full(400, DEPTH_M), np.arange(400), error_px)
    seen = frame(wall, 1)
    image = seen.image.copy()
    image[:, 115:] = rng.integers(0, 255, image[:, 115:].shape)
    motion = flow.follow(Frame(seen.stamp_ns, image, CAMERA), moved_m(3.0))
    assert motion is not None and motion.T_prev_cur.distance_to(moved_m(3.0)) < 0.02
    assert len(motion.map_point) > 80 and np.mean(motion.map_point < 100) > 0.95


def test_points_expected_behind_the_camera_are_looked_for_all_the_same(wall: np.ndarray) -> None:
    beyond = SE3(np.eye(3), np.array([0.0, 0.0, 2.0 * DEPTH_M]))
    motion = anchored(wall).follow(frame(wall, 1), beyond)
    assert motion is not None and motion.T_prev_cur.distance_to(moved_m(3.0)) < 2e-3
