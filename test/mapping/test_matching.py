"""Matches that agree with given poses lie on epipolar lines, or nearly still where the camera only turned."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.mapping.matching import on_epipolar_lines

K = np.array([[500.0, 0.0, 320.0], [0.0, 490.0, 240.0], [0.0, 0.0, 1.0]])


def pixels(points: np.ndarray) -> np.ndarray:
    projected = points @ K.T
    return projected[:, :2] / projected[:, 2:]


@pytest.mark.parametrize("baseline_m", [0.0, 0.5])
def test_right_matches_stay_and_wrong_ones_go(baseline_m: float, rng: np.random.Generator) -> None:
    points = np.stack([*rng.uniform(-1.0, 1.0, (2, 200)), rng.uniform(3.0, 6.0, 200)], 1)
    T_b_a = SE3(SE3.exp([0.02, -0.1, 0.05, 0.0, 0.0, 0.0]).R, baseline_m * np.array([0.9, 0.3, 0.1]))
    xy_a, xy_b = pixels(points), pixels(T_b_a @ points) + rng.normal(0.0, 0.5, (200, 2))
    near = on_epipolar_lines(xy_a, xy_b, T_b_a.matrix(), K, 4.0, 4.0)
    assert near.all()
    wrong = on_epipolar_lines(xy_a, np.roll(xy_b, 1, axis=0), T_b_a.matrix(), K, 4.0, 4.0)
    assert wrong.mean() < 0.15
