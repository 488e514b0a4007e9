"""Where the camera may be instead: rejected answers that agree with each other, a few such places side by side.

Each answer that is not believed speaks for the hypothesis that it agrees with, moved by the motions since, and against
all others. Their log-likelihood ratios add up (Wald 1945): a hypothesis that falls to nothing is dropped, and one is
proven when enough answers say so, over a way that tells places apart, and no other one is nearly as likely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.types import PoseEstimate

# Side by side at most; more are noise.
_MOST = 4
# Logarithm of the odds that an answer adds, at most and where its method knows no confidence: answers in a row see the
# same and err alike, so that none of them may decide alone.
_MOST_LOG_ODDS, _UNKNOWN_LOG_ODDS = 3.0, 1.0
# By so much a hypothesis must be more likely than the next one: one to twenty.
_LEAD = 3.0

Near = Callable[[PoseEstimate, PoseEstimate], bool]
"""Whether two poses of one frame agree within their uncertainties."""


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """Answers that agree.

    Attributes:
        first: the oldest of them.
        last: the newest of them, moved to the newest frame.
        count: how many.
        log_odds: how much more likely than not.
    """

    first: PoseEstimate
    last: PoseEstimate
    count: int
    log_odds: float


class Hypotheses:
    """The places that rejected answers name.

    Args:
        near: whether two poses agree.
    """

    def __init__(self, near: Near) -> None:
        self._near = near
        self._all: list[Hypothesis] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, answer: PoseEstimate, bring_forward: Callable[[PoseEstimate], PoseEstimate | None]) -> None:
        """Note an answer that was not believed.

        Args:
            answer: of the newest frame.
            bring_forward: moves a pose to that frame, None where the motion since is not known.
        """
        weight = _log_odds(answer)
        kept: list[Hypothesis] = []
        joined: Hypothesis | None = None
        for hypothesis in sorted(self._all, key=lambda h: -h.log_odds):
            moved = bring_forward(hypothesis.last)
            if moved is None:
                continue
            if joined is None and self._near(moved, answer):
                count, log_odds = hypothesis.count + 1, hypothesis.log_odds + weight
                joined = replace(hypothesis, last=answer, count=count, log_odds=log_odds)
            elif hypothesis.log_odds > weight:
                kept.append(replace(hypothesis, last=moved, log_odds=hypothesis.log_odds - weight))
        kept.append(joined or Hypothesis(answer, answer, 1, weight))
        self._all = sorted(kept, key=lambda h: -h.log_odds)[:_MOST]

    def agreeing(self, count: int, must_move: bool) -> bool:
        """Whether so many answers agree, and those that do not are far less likely.

        Args:
            count: of answers.
            must_move: they must agree over a distance that they can tell apart, too: a place that looks like another
                one says the same for as long as the camera stands still, and contradicts itself when it moves.
        """
        if not self._all:
            return False
        best = self._all[0]
        if best.count < count or (must_move and self._near(best.first, best.last)):
            return False
        return len(self._all) == 1 or best.log_odds - self._all[1].log_odds >= _LEAD

    def clear(self) -> None:
        """Forget them all."""
        self._all = []


def _log_odds(answer: PoseEstimate) -> float:
    if answer.confidence is None:
        return _UNKNOWN_LOG_ODDS
    p = float(np.clip(answer.confidence, 1e-6, 1.0 - 1e-6))
    return float(np.clip(np.log(p / (1.0 - p)), 0.1, _MOST_LOG_ODDS))
