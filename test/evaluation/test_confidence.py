"""What confidence is worth: separation of right from wrong answers, and the risk of keeping them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from answer_cases import shift

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.confidence import CURVE_POINTS, confidence_auroc, risk_coverage

RIGHT, WRONG = shift(0.0), shift(5.0)


def answers(right: Sequence[float], wrong: Sequence[float], unanswered: int = 0) -> list[Answer]:
    """Right and wrong answers of these confidences, and frames without an answer."""
    given = [(RIGHT, c) for c in right] + [(WRONG, c) for c in wrong]
    found = [Answer("a", i, SE3.identity(), T, confidence=c) for i, (T, c) in enumerate(given)]
    return found + [Answer("a", 1000 + i, SE3.identity(), None, confidence=0.9) for i in range(unanswered)]


def test_auroc_of_separated_mixed_and_inverted_confidences() -> None:
    assert confidence_auroc(answers([0.8, 0.9], [0.1, 0.2])) == 1.0
    assert confidence_auroc(answers([0.1, 0.2], [0.8, 0.9])) == 0.0
    assert confidence_auroc(answers([0.5, 0.5], [0.5])) == 0.5
    # Of the four pairs three are in order.
    assert confidence_auroc(answers([0.3, 0.9], [0.2, 0.5])) == 0.75


def test_auroc_is_the_share_of_pairs_in_order(rng: np.random.Generator) -> None:
    right, wrong = rng.normal(0.6, 0.2, 60), rng.normal(0.4, 0.2, 25)
    expected = np.mean(right[:, None] > wrong[None, :])
    assert confidence_auroc(answers(right.tolist(), wrong.tolist())) == pytest.approx(expected)


def test_auroc_is_unknown_without_both_kinds() -> None:
    assert confidence_auroc(answers([0.8, 0.9], [])) is None
    assert confidence_auroc(answers([], [0.8])) is None
    assert confidence_auroc([]) is None
    unsure = [Answer("a", 0, SE3.identity(), RIGHT), Answer("a", 1, SE3.identity(), WRONG)]
    assert confidence_auroc(unsure) is None and risk_coverage(unsure) is None


def test_risk_coverage_takes_the_most_confident_first() -> None:
    curve = risk_coverage(answers([0.9, 0.7], [0.8, 0.1], unanswered=4))
    assert curve == [[1 / 8, 0.0], [2 / 8, 0.5], [3 / 8, pytest.approx(1 / 3)], [4 / 8, 0.5]]


def test_answers_of_one_confidence_are_kept_together() -> None:
    assert risk_coverage(answers([0.9, 0.5], [0.5])) == [
        [pytest.approx(1 / 3), 0.0],
        [1.0, pytest.approx(1 / 3)],
    ]


def test_a_long_curve_is_thinned_and_keeps_its_ends(rng: np.random.Generator) -> None:
    curve = risk_coverage(answers(rng.uniform(0.5, 1.0, 300).tolist(), rng.uniform(0.0, 0.5, 100).tolist()))
    assert curve is not None and len(curve) == CURVE_POINTS
    assert curve[0] == [1 / 400, 0.0] and curve[-1] == [1.0, 0.25]
    assert [c for c, _ in curve] == sorted(c for c, _ in curve)
