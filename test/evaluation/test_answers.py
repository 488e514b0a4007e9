"""Answers beside the truth: errors, NEES, motions over an interval, statistics of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from answer_cases import answers_with, shift, turn

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import (
    Answer,
    motion_errors,
    nees,
    percentiles,
    rms,
    sequences,
    sigmas,
    statistic,
)


@pytest.mark.parametrize(
    ("error", "wrong"),
    [(shift(0.5), False), (shift(0.51), True), (turn(9.9), False), (turn(10.1), True)],
)
def test_an_answer_is_wrong_beyond_either_limit(error: SE3, wrong: bool) -> None:
    assert Answer("a", 0, SE3.identity(), error).wrong is wrong


def test_errors_without_answer_or_truth_are_unknown() -> None:
    for answer in (Answer("a", 0, None, shift(1.0)), Answer("a", 0, shift(1.0), None)):
        assert np.isnan(answer.error_m) and np.isnan(answer.error_deg) and answer.wrong is None


def test_rpe_is_the_error_of_the_motion_over_one_second() -> None:
    # Drifts 1 cm a frame along y, ten frames a second: 10 cm a second.
    metres, degrees = motion_errors(answers_with([shift(0.01 * i) for i in range(25)]))
    assert len(metres) == 15  # the frames that have one a second later
    np.testing.assert_allclose(metres, 0.1, atol=1e-9)
    np.testing.assert_allclose(degrees, 0.0, atol=1e-6)
    # Drifts 0.2 degrees a frame.
    _, degrees = motion_errors(answers_with([turn(0.2 * i) for i in range(25)]))
    np.testing.assert_allclose(degrees, 2.0, atol=1e-6)


def test_nees_of_unknown_and_singular_covariances() -> None:
    T = SE3.identity()
    assert nees(Answer("a", 0, T, T, None)) is None
    assert nees(Answer("a", 0, None, T, np.eye(6))) is None
    assert nees(Answer("a", 0, T, T, np.zeros((6, 6)))) == float("inf")


def test_sigmas_are_of_the_most_uncertain_direction() -> None:
    assert sigmas(None) == (None, None)
    metres, degrees = sigmas(np.diag([1e-4, 4e-4, 1e-4, 0.01, 0.04, 0.09]))
    assert (metres, degrees) == (pytest.approx(0.3), pytest.approx(np.degrees(0.02)))


def test_a_name_that_comes_back_is_another_sequence() -> None:
    frames = [Answer(name, i, None, None) for i, name in enumerate("aabba")]
    assert [[a.stamp_ns for a in part] for part in sequences(frames)] == [[0, 1], [2, 3], [4]]


def test_statistics_of_nothing_are_none() -> None:
    assert statistic(np.median, np.array([])) is None
    assert statistic(np.max, np.array([1.0, np.inf])) is None
    assert statistic(rms, np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))
    assert percentiles([1.0, 2.0, 3.0, float("nan")], 50, 99.9)["p50"] == 2.0
    assert percentiles([], 50) == {"p50": None}
