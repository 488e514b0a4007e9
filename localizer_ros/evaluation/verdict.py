"""A word for a run: good, doubtful or bad, and why.

The limits are those of a robot that navigates by the answers, not of a benchmark: they say when somebody should look
closer, and the figures themselves stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, RECALLS, Metrics

ANSWERED_GOOD, ANSWERED_BAD = 0.95, 0.5
"""Shares of the frames that have an answer."""

WRONG_GOOD, WRONG_BAD = 0.005, 0.05
"""Shares of the answers that are wrong."""

NEAR_GOOD, NEAR_BAD = 0.9, 0.5
"""Shares of the frames within 0.5 m and 5 degrees."""

NEES_GOOD = 3.0 * NEES_EXPECTED_MEDIAN
"""Median NEES beyond which sigmas are too small by more than the square root of three."""

JUMPS_GOOD_PER_MIN = 6.0
"""One jump in ten seconds is what a local planner can still ride out."""

SAME_IMAGE_M = 0.001
"""A mapping image nearer than this is the frame itself: being beaten by it says nothing."""

RECALL_LOST_BY_SMOOTHING = 0.03
"""A recall that is lower by more than this after smoothing: less may be one frame of a short recording."""

RAW_IS_BETTER = "raw answers are better than smoothed ones"
"""How the reason begins that smoothing costs recall."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a run is.

    Attributes:
        word: the worst that any reason gives; None where there is no ground truth to judge by.
        reasons: why it is not good, one sentence each.
    """

    word: Literal["good", "doubtful", "bad"] | None
    reasons: tuple[str, ...]


def judge(smoothed: Metrics, raw: Metrics, neighbour: Metrics | None = None) -> Verdict:
    """The verdict on a run.

    Args:
        smoothed: of the published answers.
        raw: of the absolute answers before smoothing.
        neighbour: of the pose of the mapping image that looks most alike, None where that is not known.
    """
    if not smoothed.answered:
        raw_too = "" if raw.answered else "; is this another place, or another camera?"
        return Verdict("bad", (f"none of {smoothed.frames} frames has an answer{raw_too}",))
    if not smoothed.frames_with_truth:
        return Verdict(None, ("there is no ground truth: how right the answers are is not known",))
    bad, doubtful = _by_counts(smoothed)
    doubtful += _by_use(smoothed) + _by_smoothing(smoothed, raw)
    if neighbour is not None and beaten_by(smoothed, neighbour):
        bad.append("the pose of the mapping image that looks most alike is nearer to the truth")
    return Verdict("bad" if bad else "doubtful" if doubtful else "good", (*bad, *doubtful))


def graded(share: float | None, good: float, bad: float) -> Literal["good", "doubtful", "bad"]:
    """The word for a share that is good from one limit on and bad below another; unknown is no reproach."""
    if share is None or share >= good:
        return "good"
    return "bad" if share < bad else "doubtful"


def _by_counts(m: Metrics) -> tuple[list[str], list[str]]:
    """Bad and doubtful reasons from shares of the frames."""
    bad: list[str] = []
    doubtful: list[str] = []
    answered = m.answered / m.frames
    if answered < ANSWERED_GOOD:
        text = f"only {100 * answered:.0f} % of the frames have an answer"
        (bad if answered < ANSWERED_BAD else doubtful).append(text)
    if m.wrong and m.wrong_fraction is not None and m.wrong_fraction > WRONG_GOOD:
        text = f"wrong answers, off by more than {WRONG_M:g} m or {WRONG_DEG:g} deg: {m.wrong}"
        (bad if m.wrong_fraction > WRONG_BAD else doubtful).append(text)
    near = m.recall["50cm_5deg"]
    if near is not None and near < NEAR_GOOD:
        text = f"only {100 * near:.0f} % of the frames are within 0.5 m and 5 deg"
        (bad if near < NEAR_BAD else doubtful).append(text)
    return bad, doubtful


def _by_use(m: Metrics) -> list[str]:
    """Doubtful for whoever fuses or follows the answers."""
    doubtful = []
    if m.nees_median is not None and m.nees_median > NEES_GOOD:
        doubtful.append(
            f"covariances are too small: median NEES {m.nees_median:.1f}, honest is {NEES_EXPECTED_MEDIAN:.1f}"
        )
    if m.jumps_per_min is not None and m.jumps_per_min > JUMPS_GOOD_PER_MIN:
        doubtful.append(f"the pose jumps {m.jumps_per_min:.0f} times a minute")
    return doubtful


def _by_smoothing(smoothed: Metrics, raw: Metrics) -> list[str]:
    """The recall that smoothing costs most, if any."""
    lost = {
        name: before - after
        for name in RECALLS
        if (before := raw.recall[name]) is not None and (after := smoothed.recall[name]) is not None
    }
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is None or lost[worst] <= RECALL_LOST_BY_SMOOTHING:
        return []
    metres, degrees = RECALLS[worst]
    return [
        f"{RAW_IS_BETTER}: {100 * lost[worst]:.0f} % more of the frames are within "
        f"{metres:g} m and {degrees:g} deg"
    ]


def beaten_by(m: Metrics, neighbour: Metrics) -> bool:
    """Whether both medians of the baseline are smaller, and the frames were not mapped themselves."""
    if m.median_t_m is None or m.median_r_deg is None:
        return False
    if neighbour.median_t_m is None or neighbour.median_r_deg is None:
        return False
    if neighbour.median_t_m < SAME_IMAGE_M:
        return False
    return neighbour.median_t_m < m.median_t_m and neighbour.median_r_deg < m.median_r_deg
