"""The move between two images, up to its length."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.two_views import relative_pose


def matched_rays(T_a_b: SE3, rng: np.random.Generator, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    X = np.column_stack([rng.uniform(-2, 2, (count, 2)), rng.uniform(3, 8, count)])
    in_b = T_a_b.inverse() @ X
    noise = rng.normal(0, 0.3 / 500.0, (2, count, 2))
    return X[:, :2] / X[:, 2:] + noise[0], in_b[:, :2] / in_b[:, 2:] + noise[1]


def test_a_move_is_found_among_wrong_matches(rng: np.random.Generator) -> None:
    truth = SE3.exp([0.05, -0.1, 0.02, 0.5, 0.1, 0.2])
    a, b = matched_rays(truth, rng)
    b[:30] = rng.uniform(-0.5, 0.5, (30, 2))
    found = relative_pose(a, b, 500.0, 30, 0)
    assert found is not None and found.T_a_b.angle_to(truth) < np.radians(0.3)
    assert found.T_a_b.t @ truth.t / np.linalg.norm(truth.t) > np.cos(np.radians(3.0))
    assert found.inliers[30:].mean() > 0.9 and found.parallax_rad > np.radians(2.0)


def test_a_turn_alone_has_no_parallax_and_chance_is_no_move(rng: np.random.Generator) -> None:
    turned = relative_pose(*matched_rays(SE3.exp([0, 0.2, 0, 0.001, 0, 0]), rng), 500.0, 30, 0)
    assert turned is not None and turned.parallax_rad < np.radians(0.2)
    assert (
        relative_pose(rng.uniform(-0.5, 0.5, (60, 2)), rng.uniform(-0.5, 0.5, (60, 2)), 500.0, 30, 0) is None
    )
    assert relative_pose(np.zeros((5, 2)), np.zeros((5, 2)), 500.0, 30, 0) is None
