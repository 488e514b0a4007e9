"""Whether the confidence of answers tells right ones from wrong ones.

An answer is wrong when it is further off than ``limits.WRONG_M`` or ``limits.WRONG_DEG``. Answers without a
confidence or without ground truth say nothing here and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from localizer_ros.core.types import Array
from localizer_ros.evaluation.answers import Answer

CURVE_POINTS = 20
"""Points of a risk-coverage curve at most: enough to draw it, few enough to read in a JSON file."""


def confidence_auroc(answers: Sequence[Answer]) -> float | None:
    """How often a right answer is more confident than a wrong one: the area under the ROC curve.

    1 separates them perfectly, 0.5 is no better than chance; equal confidences count half (Hanley and McNeil, Radiology
    1982). None when nothing is known of it: no confidences, all answers right, or all wrong.
    """
    return auroc(*_judged(answers))


def auroc(confidence: Array, wrong: NDArray[np.bool_]) -> float | None:
    """The same of (N,) confidences and (N,) whether each answer is wrong."""
    count_wrong = int(wrong.sum())
    count_right = len(wrong) - count_wrong
    if not count_wrong or not count_right:
        return None
    # Mann-Whitney U of the right answers.
    above = float(rankdata(confidence)[~wrong].sum()) - count_right * (count_right + 1) / 2
    return above / (count_right * count_wrong)


def risk_coverage(answers: Sequence[Answer]) -> list[list[float]] | None:
    """Points ``[coverage, share wrong]`` of taking only answers of at least some confidence, the most confident first.

    Coverage is the share of the frames with ground truth that keep their answer; the share wrong is of the answers kept
    (El-Yaniv and Wiener, JMLR 2010). At most ``CURVE_POINTS``, the last with all answers. None without confidences.
    """
    confidence, wrong = _judged(answers)
    if not len(confidence):
        return None
    frames = sum(a.T_map_true is not None for a in answers)
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    share_wrong = np.cumsum(wrong[order]) / kept
    # Of answers of the same confidence either all are kept or none.
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0.0, True))
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), CURVE_POINTS)).round().astype(int))]
    return [[float(kept[i] / frames), float(share_wrong[i])] for i in chosen]


def _judged(answers: Sequence[Answer]) -> tuple[Array, NDArray[np.bool_]]:
    """(N,) confidences of the answers that can be judged, and (N,) whether each is wrong."""
    judged = [(a.confidence, a.wrong) for a in answers if a.confidence is not None and a.wrong is not None]
    return np.array([c for c, _ in judged], dtype=np.float64), np.array(
        [w for _, w in judged], dtype=np.bool_
    )
