"""Keyframes are spread over the views, and near ones are matched."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.mapping.keyframes import Keyframes, choose_keyframes, choose_pairs


def test_keyframes_are_spread_over_the_views() -> None:
    T = np.stack([SE3(np.eye(3), np.array([x, 0.0, 0.0])).matrix() for x in np.linspace(0, 1, 101)])
    chosen = choose_keyframes(T, 2.0, 5, 0.1)
    assert chosen.tolist() == [0, 25, 50, 75, 100]
    # 2 m away, 5 degrees are 17 cm.
    assert len(choose_keyframes(T, 2.0, 50, 5.0)) <= 8
    pairs = choose_pairs(T[chosen], 2.0, 4, np.radians(45))
    assert (0, 1) in pairs and all(a < b for a, b in pairs)


def test_keyframes_are_numbered_in_the_recording_and_the_others_are_held_out() -> None:
    keyframes = Keyframes([1, 3, 4, 7], np.zeros((4, 4, 4)), ("b", "d", "e", "h"), np.array([0, 2]), 1.0)
    assert keyframes.images == [1, 4] and keyframes.image_names == ("b", "e")
    assert keyframes.held_out == [1, 3]
