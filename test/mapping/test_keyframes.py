"""Keyframes are spread over the views, and near ones are matched."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.config.mapping import KeyframeConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.mapping.keyframes import (
    FEWEST_VALIDATED,
    Keyframes,
    changed_views,
    choose_keyframes,
    choose_pairs,
    some_left_out,
)


def test_keyframes_are_spread_over_the_views() -> None:
    T = np.stack([SE3(np.eye(3), np.array([x, 0.0, 0.0])).matrix() for x in np.linspace(0, 1, 101)])
    chosen = choose_keyframes(T, 2.0, KeyframeConfig(max_images=5, min_spacing_deg=0.1))
    assert chosen.tolist() == [0, 25, 50, 75, 100]
    # 2 m away, 5 degrees are 17 cm.
    assert len(choose_keyframes(T, 2.0, KeyframeConfig(max_images=50, min_spacing_deg=5.0))) <= 8
    pairs = choose_pairs(T[chosen], 2.0, 4, np.radians(45))
    assert (0, 1) in pairs and all(a < b for a, b in pairs)


def along(path_m: float, frames: int) -> np.ndarray:
    """A camera that looks aside on a straight path."""
    return np.stack(
        [SE3(np.eye(3), np.array([x, 0.0, 0.0])).matrix() for x in np.linspace(0, path_m, frames)]
    )


def test_the_number_of_keyframes_follows_the_path_and_not_the_frame_rate() -> None:
    config = KeyframeConfig(dense_images=20)
    counts = {}
    for path_m, frames in ((5.0, 1000), (50.0, 1500), (50.0, 9000), (100.0, 18_000)):
        T = along(path_m, frames)
        views = changed_views(T, 2.0, config.min_spacing_deg)
        counts[path_m, frames] = len(views), len(choose_keyframes(T[views], 2.0, config))
    assert counts[5.0, 1000][1] >= 20
    assert counts[50.0, 9000][0] < 2 * counts[50.0, 1500][0]
    assert counts[50.0, 9000][1] < 2 * counts[50.0, 1500][1]
    assert counts[100.0, 18_000] == pytest.approx(2.0 * np.array(counts[50.0, 9000]), rel=0.15)


def test_a_camera_that_stands_adds_no_view() -> None:
    T = np.concatenate([along(1.0, 100), np.repeat(along(1.0, 2)[1:], 500, axis=0)])
    assert len(changed_views(T, 2.0, 1.5)) < 30


def test_keyframes_are_numbered_in_the_recording_and_the_others_are_held_out() -> None:
    keyframes = Keyframes(
        [1, 3, 4, 7], np.zeros((4, 4, 4)), ("b", "d", "e", "h"), np.array([0, 2, 3]), np.array([0, 2]), 1.0
    )
    assert keyframes.images == [1, 4] and keyframes.image_names == ("b", "e")
    assert keyframes.held_out == [1, 3]


@pytest.mark.parametrize("posed", [3, 30, 79, 80, 120, 151])
def test_some_frames_are_left_to_validate_a_map_on_where_they_can_be_spared(posed: int) -> None:
    everything = np.arange(posed)
    chosen = some_left_out(everything, posed)
    assert len(chosen) == posed if posed < 80 else FEWEST_VALIDATED <= posed - len(chosen) <= posed / 8
    assert chosen[0] == 0 and np.all(np.diff(chosen) <= 2)
    # Where frames are left anyway, every keyframe stays.
    assert len(some_left_out(everything, posed + FEWEST_VALIDATED)) == posed
