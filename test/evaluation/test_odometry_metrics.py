"""Odometry by itself: motions that add up, and what they add up to."""

from __future__ import annotations

import numpy as np
import pytest
from answer_cases import PERIOD_NS, answers_with, shift, truth, turn

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN
from localizer_ros.evaluation.odometry_metrics import Motion, compute_odometry, dead_reckoning


def moves(errors: list[SE3 | None], covariance: np.ndarray | None = None) -> list[Motion | None]:
    """True motions of ``answers_with``, each followed by an error; the first frame has none, None is unknown."""
    motions: list[Motion | None] = [None]
    for i, error in enumerate(errors, start=1):
        T = truth(i - 1).inverse() @ truth(i)
        stamps = ((i - 1) * PERIOD_NS, i * PERIOD_NS)
        motions.append(None if error is None else Motion(*stamps, T @ error, covariance))
    return motions


def test_true_motions_add_up_to_the_path() -> None:
    o = compute_odometry(answers_with([None] * 31), moves([SE3.identity()] * 30))
    assert (o.frames, o.motions, o.lengths) == (30, 30, "own")
    for value in (o.rpe_t_m, o.rpe_r_deg, o.rpe_median_t_m, o.rpe_median_r_deg, o.drift_percent):
        assert value == pytest.approx(0.0, abs=1e-9)
    assert (o.nees_median, o.nees_1s_median) == (None, None)


def test_bias_of_motions_adds_up_to_drift() -> None:
    # 0.1 degrees a frame about the axis the drive turns about: one degree in ten frames, which are a second.
    o = compute_odometry(answers_with([None] * 31), moves([turn(0.1)] * 30))
    assert o.rpe_r_deg == pytest.approx(1.0) == o.rpe_median_r_deg
    straight = [
        Answer("a", i * PERIOD_NS, SE3(np.eye(3), np.array([0.0, 0.0, 0.2 * i])), None) for i in range(31)
    ]
    forward = SE3(np.eye(3), np.array([0.0, 0.0, 0.2 * 1.05]))
    scaled = [None, *(Motion((i - 1) * PERIOD_NS, i * PERIOD_NS, forward) for i in range(1, 31))]
    o = compute_odometry(straight, scaled, "odometry")
    assert o.drift_percent == pytest.approx(5.0)
    assert o.rpe_t_m == pytest.approx(0.05 * 2.0)
    assert o.lengths == "odometry"


def test_path_error_is_of_motions_carried_on_from_the_first_answer() -> None:
    away = shift(0.3)
    # No answer in the first three frames; what is answered after the fourth does not matter.
    frames = answers_with([None] * 3 + [away] + [shift(9.0)] * 7) + answers_with(
        [away] + [None] * 10, "b", 100
    )
    motions = moves([SE3.identity()] * 10) + [None] * 11
    o = compute_odometry(frames, motions)
    assert o.ate_rmse_m == pytest.approx(0.3)
    assert compute_odometry(answers_with([None] * 11), moves([SE3.identity()] * 10)).ate_rmse_m is None


def test_segments_end_at_unknown_motions_and_new_sequences() -> None:
    away = shift(5.0)
    frames = answers_with([None] * 31) + answers_with([None] * 21, "b", 100)
    motions = moves([SE3.identity()] * 14 + [None] + [SE3.identity()] * 15)
    # A motion into the first frame of the other sequence, from a frame of the first one.
    motions += [Motion(30 * PERIOD_NS, 100 * PERIOD_NS, away)] + [None] * 20
    o = compute_odometry(frames, motions)
    assert (o.frames, o.motions) == (50, 29)
    assert o.rpe_t_m == pytest.approx(0.0, abs=1e-9)
    names = {a.sequence for a in dead_reckoning(frames, motions)}
    assert len(names) == 2


def test_motions_since_keyframes_add_up() -> None:
    frames = answers_with([None] * 31)
    motions: list[Motion | None] = [None]
    for i in range(1, 31):
        key = (i - 1) // 4 * 4
        motions.append(Motion(key * PERIOD_NS, i * PERIOD_NS, truth(key).inverse() @ truth(i)))
    o = compute_odometry(frames, motions)
    assert o.motions == 30
    assert o.drift_percent == pytest.approx(0.0, abs=1e-9)


def test_nees_of_honest_motions_alone_and_over_one_second(rng: np.random.Generator) -> None:
    covariance = np.diag([1e-4, 2e-4, 1e-4, 4e-4, 1e-4, 9e-4])
    covariance[0, 4] = covariance[4, 0] = 5e-5
    noise = rng.multivariate_normal(np.zeros(6), covariance, 800)
    frames = answers_with([None] * 801)
    o = compute_odometry(frames, moves([SE3.exp(xi) for xi in noise], covariance))
    # The median of 800 draws is within 8 % of the true one (2 sigma); of seconds there are 80 apart.
    assert o.nees_median == pytest.approx(NEES_EXPECTED_MEDIAN, rel=0.1)
    assert o.nees_1s_median == pytest.approx(NEES_EXPECTED_MEDIAN, rel=0.3)
    bias = SE3.exp([0.01, 0.0, 0.0, 0.0, 0.0, 0.0])
    o = compute_odometry(frames, moves([SE3.exp(xi) @ bias for xi in noise], covariance))
    assert o.nees_1s_median is not None and o.nees_1s_median > 2 * NEES_EXPECTED_MEDIAN
