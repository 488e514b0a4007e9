"""Odometry and what images say of pairs of views: drift goes, wrongly recognised views do not matter."""

from __future__ import annotations

import itertools

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.smoothing.odometry_graph import SeenMove, optimised


def drive(steps: int) -> list[SE3]:
    """Two rounds of a circle of 2 m."""
    angles = np.linspace(0.0, 4.0 * np.pi, steps)
    return [
        SE3(SE3.exp([0, 0, a, 0, 0, 0]).R, np.array([2.0 * np.cos(a), 2.0 * np.sin(a), 0.0])) for a in angles
    ]


def drifted(truth: list[SE3], turn_share: float) -> list[SE3]:
    poses = [truth[0]]
    for a, b in itertools.pairwise(truth):
        step = a.inverse() @ b
        off = SE3.exp([0, 0, turn_share * step.log()[2], 0, 0, 0])
        poses.append(poses[-1] @ step @ off)
    return poses


def seen(truth: list[SE3], a: int, b: int, rng: np.random.Generator) -> SeenMove:
    T = truth[a].inverse() @ truth[b]
    noisy = SE3(SE3.exp([*rng.normal(0, 0.002, 3), 0, 0, 0]).R @ T.R, T.t / np.linalg.norm(T.t))
    return SeenMove(a, b, noisy, 0.003, 0.03)


def test_loops_take_the_drift_out_and_a_wrong_one_is_let_go(rng: np.random.Generator) -> None:
    truth = drive(80)
    odometry = drifted(truth, 0.05)
    moves = [seen(truth, i, i + 2, rng) for i in range(78)]
    moves += [seen(truth, i, i + 37, rng) for i in range(0, 43, 3)]
    wrong = SeenMove(
        5, 60, SE3.exp([0.4, 0.3, 1.0, 0, 0, 0]) @ SE3(np.eye(3), np.array([0, 0, 1.0])), 0.003, 0.03
    )
    found = optimised(odometry, [*moves, wrong])

    def worst(poses: list[SE3]) -> float:
        return max(a.distance_to(b) for a, b in zip(poses, truth, strict=True))

    assert worst(odometry) > 0.5
    assert worst(found) < 0.1 * worst(odometry)


def test_odometry_alone_stays_as_it_is() -> None:
    odometry = drive(10)
    found = optimised(odometry, [])
    assert max(a.distance_to(b) for a, b in zip(found, odometry, strict=True)) < 1e-6
