"""Where the camera may be instead: rejected answers that agree with each other, a few such places side by side.

Each answer that is not believed speaks for the hypothesis that it agrees with, moved by the motions since, and against
all others; a frame that was looked for in the whole map and not found speaks against all. Their log-likelihood ratios
add up (Wald 1945): a hypothesis that falls to nothing is dropped, and one is proven when enough answers say so, over a
way that tells places apart, and no other one is nearly as likely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.types import PoseEstimate

# Side by side at most; more are noise.
_MOST = 4
# An answer adds so much at least.
_LEAST_LOG_ODDS = 0.1
# What a frame without an answer takes away: at a mapped place one in five has none, where light or blur are bad (one in
# 25 of Red Kitchen), at a place that only looks like one nine in ten (three in four of a simulated room, on tiles).
_UNFOUND_LOG_ODDS = float(np.log(0.9 / 0.2))
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
        sure: confidence of an answer that is sure of itself; one counts as no more, because answers in a row see the
            same and err alike, and as no less where its method knows no confidence.
    """

    def __init__(self, near: Near, sure: float) -> None:
        self._near = near
        self.reconfigure(sure)
        self._all: list[Hypothesis] = []

    def reconfigure(self, sure: float) -> None:
        """Another confidence of sure answers from now on."""
        self._sure = _logit(sure)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, answer: PoseEstimate, bring_forward: Callable[[PoseEstimate], PoseEstimate | None]) -> None:
        """Note an answer that was not believed.

        Args:
            answer: of the newest frame.
            bring_forward: moves a pose to that frame, None where the motion since is not known.
        """
        weight = self._log_odds(answer)
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

    def unfound(self) -> None:
        """Note a frame that was looked for in the whole map, and not found."""
        less = (replace(h, log_odds=h.log_odds - _UNFOUND_LOG_ODDS) for h in self._all)
        self._all = [h for h in less if h.log_odds > 0.0]

    def agreeing(self, count: int, contradicting: bool) -> bool:
        """Whether so many answers agree, and those that do not are far less likely.

        Args:
            count: of answers.
            contradicting: what they contradict was measured, too. So they must weigh as much as so many that are sure
                of themselves, and agree over a distance that they can tell apart: a place that looks like another one
                says the same for as long as the camera stands still, and contradicts itself when it moves.
        """
        if not self._all:
            return False
        best = self._all[0]
        if best.count < count:
            return False
        if contradicting and (best.log_odds < count * self._sure - 1e-9 or self._near(best.first, best.last)):
            return False
        return len(self._all) == 1 or best.log_odds - self._all[1].log_odds >= _LEAD

    def clear(self) -> None:
        """Forget them all."""
        self._all = []

    def _log_odds(self, answer: PoseEstimate) -> float:
        if answer.confidence is None:
            return self._sure
        return float(np.clip(_logit(answer.confidence), _LEAST_LOG_ODDS, max(self._sure, _LEAST_LOG_ODDS)))


def _logit(p: float) -> float:
    p = float(np.clip(p, 1e-6, 1.0 - 1e-6))
    return float(np.log(p / (1.0 - p)))
