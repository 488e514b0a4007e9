"""Metrics: each number against a case whose answer is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from answer_cases import PERIOD_NS, answers_with, shift, turn

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, NEES_EXPECTED_P90, compute_metrics


def test_a_perfect_run() -> None:
    m = compute_metrics(answers_with([SE3.identity()] * 30))
    assert (m.frames, m.frames_with_truth, m.answered) == (30, 30, 30)
    for value in (m.median_t_m, m.mean_t_m, m.p90_t_m, m.ate_rmse_m, m.rpe_t_m, m.jitter_t_m):
        assert value == pytest.approx(0.0, abs=1e-12)
    for value in (m.median_r_deg, m.mean_r_deg, m.p90_r_deg, m.rpe_r_deg, m.jitter_r_deg):
        assert value == pytest.approx(0.0, abs=1e-9)
    assert m.recall == {"5cm_5deg": 1.0, "10cm_5deg": 1.0, "25cm_2deg": 1.0, "50cm_5deg": 1.0}
    assert (m.jumps_per_min, m.wrong_fraction, m.nees_median) == (0.0, 0.0, None)


def test_a_constant_offset_is_an_error_but_no_motion() -> None:
    m = compute_metrics(answers_with([SE3(turn(3.0).R, np.array([0.2, 0.0, 0.0]))] * 30))
    assert m.median_t_m == pytest.approx(0.2)
    assert m.p90_t_m == pytest.approx(0.2)
    assert m.ate_rmse_m == pytest.approx(0.2)  # nothing is aligned away
    assert m.median_r_deg == pytest.approx(3.0)
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    assert m.jitter_r_deg == pytest.approx(0.0, abs=1e-6)
    assert m.jumps_per_min == 0.0
    assert m.recall["25cm_2deg"] == 0.0 and m.recall["50cm_5deg"] == 1.0


def test_unanswered_frames_fail_in_recalls_and_are_left_out_of_medians() -> None:
    m = compute_metrics(answers_with([shift(0.01), None, shift(0.03), None]))
    assert (m.frames, m.answered) == (4, 2)
    assert m.median_t_m == pytest.approx(0.02)
    assert m.mean_t_m == pytest.approx(0.02)
    assert m.recall["5cm_5deg"] == 0.5
    assert m.wrong_fraction == 0.0


def test_no_answers_at_all() -> None:
    m = compute_metrics(answers_with([None] * 5))
    assert (m.frames, m.answered, m.median_t_m, m.ate_rmse_m, m.jumps_per_min) == (5, 0, None, None, None)
    assert m.recall["50cm_5deg"] == 0.0
    assert compute_metrics([]).recall["50cm_5deg"] is None


def test_frames_without_truth_are_counted_but_not_judged() -> None:
    known = answers_with([shift(0.04)] * 4)
    unknown = [Answer("a", (10 + i) * PERIOD_NS, None, SE3.identity()) for i in range(6)]
    m = compute_metrics(known + unknown)
    assert (m.frames, m.frames_with_truth, m.answered) == (10, 4, 10)
    assert m.recall["5cm_5deg"] == 1.0
    nothing = compute_metrics(unknown)
    assert nothing.answered == 6
    assert nothing.median_t_m is None and nothing.recall == dict.fromkeys(m.recall)


def test_median_p90_and_wrong_answers() -> None:
    m = compute_metrics(answers_with([shift(0.1 * i) for i in range(11)]))
    assert m.median_t_m == pytest.approx(0.5)
    assert m.p90_t_m == pytest.approx(0.9)
    assert (m.wrong, m.wrong_fraction) == (5, pytest.approx(5 / 11))
    assert compute_metrics(answers_with([turn(11.0), SE3.identity()])).wrong_fraction == 0.5


def test_sequences_are_never_bridged() -> None:
    first = answers_with([SE3.identity()] * 8, "a")
    second = answers_with([shift(3.0)] * 8, "b", start=8)
    m = compute_metrics(first + second)
    assert m.jumps_per_min == 0.0
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    assert m.rpe_t_m is None  # neither is a second long
    joined = [Answer("a", a.stamp_ns, a.T_map_true, a.T_map_cam) for a in first + second]
    together = compute_metrics(joined)
    assert together.jumps_per_min is not None and together.jumps_per_min > 0.0
    assert together.rpe_t_m is not None and together.rpe_t_m > 1.0


def test_jumps_count_over_gaps_and_jitter_does_not() -> None:
    errors: list[SE3 | None] = [SE3.identity()] * 5 + [None, None] + [shift(0.5)] * 5
    m = compute_metrics(answers_with(errors))
    # One jump in the 1.1 s between the first and the last answer.
    assert m.jumps_per_min == pytest.approx(60.0 / 1.1)
    assert m.jitter_t_m == pytest.approx(0.0, abs=1e-12)
    # A step in rotation alone, and one that is too small.
    assert compute_metrics(answers_with([SE3.identity(), turn(6.0)])).jumps_per_min == pytest.approx(600.0)
    assert compute_metrics(answers_with([SE3.identity(), shift(0.19)])).jumps_per_min == 0.0


def test_jitter_is_the_rms_of_the_steps() -> None:
    m = compute_metrics(answers_with([shift(0.01 * (-1) ** i) for i in range(20)]))
    assert m.jitter_t_m == pytest.approx(0.02)
    m = compute_metrics(answers_with([turn(1.0 * (-1) ** i) for i in range(20)]))
    assert m.jitter_r_deg == pytest.approx(2.0)


def test_nees_of_an_honest_covariance_has_the_chi_square_median(rng: np.random.Generator) -> None:
    A = rng.normal(size=(6, 6))
    S = 1e-4 * (A @ A.T + np.eye(6))
    T_true = SE3.exp([0.5, -1.0, 0.3, 50.0, 20.0, -5.0])
    L = np.linalg.cholesky(S)

    def answers(claimed: float) -> list[Answer]:
        # T_true = T_est Exp(xi)
        return [
            Answer("a", i, T_true, T_true @ SE3.exp(L @ rng.normal(size=6)).inverse(), claimed * S)
            for i in range(1500)
        ]

    # The median of 1500 samples of a chi-square of 6 degrees has a standard error of 0.1.
    honest = compute_metrics(answers(1.0))
    assert honest.nees_median == pytest.approx(NEES_EXPECTED_MEDIAN, abs=0.4)
    # The 90th percentile has one of 0.25.
    assert honest.nees_p90 == pytest.approx(NEES_EXPECTED_P90, abs=1.0)
    # Sigmas a third of what they should be.
    assert compute_metrics(answers(1 / 9)).nees_median == pytest.approx(9 * NEES_EXPECTED_MEDIAN, rel=0.08)


def test_metrics_of_a_singular_covariance_are_unknown() -> None:
    T = SE3.identity()
    # Infinity is not a number that JSON has.
    m = compute_metrics([Answer("a", 0, T, T, np.zeros((6, 6)))])
    assert (m.nees_median, m.nees_p90) == (None, None)


def test_confidence_is_judged_by_wrong_answers() -> None:
    confidences = (0.9, 0.2, 0.8, None)
    answers = [
        Answer("a", i, SE3.identity(), shift(metres), confidence=confidence)
        for i, (metres, confidence) in enumerate(zip((0.1, 2.0, 0.1, 3.0), confidences, strict=True))
    ]
    m = compute_metrics(answers)
    assert (m.wrong, m.confidence_auroc) == (2, 1.0)
    assert m.risk_coverage == [[0.25, 0.0], [0.5, 0.0], [0.75, pytest.approx(1 / 3)]]
    assert compute_metrics(answers[:1]).confidence_auroc is None
