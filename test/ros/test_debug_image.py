"""The image with words and points on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localizer_ros.core.seen import NO_POINTS, SeenPoints, without_pose
from localizer_ros.core.types import Camera, Frame, LocalizerOutput, Status
from localizer_ros.ros.debug_image import INLIER, KEYPOINT, PROJECTED, REJECTED, debug_image

pytestmark = pytest.mark.ros


def drawn(
    seen: SeenPoints | None = None, reason: str = "", width_px: int = 640, height_px: int = 480
) -> np.ndarray:
    camera = Camera.pinhole(width_px, height_px, 500.0, 500.0, width_px / 2, height_px / 2)
    frame = Frame(1, np.full((height_px, width_px, 3), 60, np.uint8), camera)
    output = LocalizerOutput(1, Status.LOST, None, None, None, reason, {}, seen=seen)
    return debug_image(frame, output)


def ground_px(image: np.ndarray) -> int:
    """Height of the dark ground of the words."""
    return int((image[:, -1, 0] < 30).sum())


def has(image: np.ndarray, colour: tuple[int, int, int], x: float, y: float) -> bool:
    """Whether a colour is near a place, blended with the ground at the edges."""
    part = image[round(y) - 5 : round(y) + 6, round(x) - 5 : round(x) + 6].astype(int)
    return bool((np.abs(part - colour).sum(axis=-1) < 60).any())


@given(reason=st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=400))
@settings(max_examples=30, deadline=None)
def test_no_word_is_cut_at_the_edge(reason: str) -> None:
    image = drawn(reason=reason, width_px=320, height_px=600)
    # Right of the margin there is ground or picture, and no letter.
    assert set(np.unique(image[:, -5:])) <= {20, 60}


def test_a_long_reason_takes_more_lines_on_a_narrow_image() -> None:
    reason = "no believable absolute pose for 12.3 s; few inliers among 184 matches; too few keypoints (12)"
    reason += "; an absolute pose that is sure of itself lies far from the prediction"
    assert ground_px(drawn(reason=reason)) < ground_px(drawn(reason=reason, width_px=480))


def test_a_small_image_is_made_larger_so_that_its_words_leave_room_for_its_points() -> None:
    seen = without_pose(NO_POINTS, np.array([[100.0, 150.0]]))
    image = drawn(seen, "too few matches (11); no believable absolute pose for 0.3 s", 240, 180)
    assert image.shape == (360, 480, 3) and ground_px(image) < 120
    assert has(image, REJECTED, 200.5, 300.5)


def test_matches_are_drawn_with_a_pose_and_without() -> None:
    keypoints_px = np.array([[100.0, 300.0], [200.0, 300.0], [300.0, 300.0]])
    alone = drawn(without_pose(keypoints_px, keypoints_px[1:]))
    assert has(alone, KEYPOINT, 100, 300)
    assert has(alone, REJECTED, 200, 300) and has(alone, REJECTED, 300, 300)
    explained = SeenPoints(
        NO_POINTS, keypoints_px[1:], np.array([True, False]), keypoints_px[1:] + np.array([0.0, 40.0])
    )
    posed = drawn(explained)
    assert not has(posed, KEYPOINT, 100, 300)
    assert has(posed, INLIER, 200, 300) and has(posed, PROJECTED, 200, 340)
    assert has(posed, REJECTED, 300, 300) and not has(posed, PROJECTED, 300, 340)


def test_points_are_where_they_are_in_an_image_that_is_made_smaller_and_numbers_that_are_none_do_no_harm() -> (
    None
):
    far = np.array([[1000.0, 800.0], [np.nan, 5.0], [1e30, -1e30]])
    image = drawn(without_pose(NO_POINTS, far), width_px=1280, height_px=960)
    assert image.shape == (480, 640, 3)
    assert has(image, REJECTED, 499.75, 399.75)


def test_a_tiny_image_is_drawn_as_well() -> None:
    assert drawn(reason="too few keypoints (3)", width_px=32, height_px=24).shape == (360, 480, 3)
