"""Which absolute poses are believed: those near the prediction, and many that contradict it in the same way."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from localizer_ros.core.config.runtime import GateConfig
from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.statistics import chi2_quantile
from localizer_ros.core.types import PoseEstimate
from localizer_ros.localization.hypotheses import Hypotheses

# Answers in a row that are not sure of themselves, to start from the last of them: two that err alike are not rare.
AGREEING_STARTS = 3
# No map gives an answer that is less probable to be right, at the usual share of wrong ones (search.max_wrong); methods
# whose confidence is no probability hardly ever are that sure.
_CONTRADICTS = 0.98


class AnswerOutcome(enum.Enum):
    """What became of an absolute pose; the value is what a user is told, empty where all is well."""

    ACCEPTED = ""
    UNUSABLE = "absolute pose ignored: it or its covariance is not finite"
    TOO_LATE = "absolute pose came too late: its frame is no longer known"
    REJECTED = "absolute pose rejected: far from the prediction"
    CONTRADICTS = "an absolute pose that is sure of itself lies far from the prediction"
    ALONE = "absolute pose not sure of itself, and no other frame to hold it against"
    UNCONFIRMED = "absolute pose not sure enough of itself to start from: waits for others that agree"
    REFUTED = "the given pose is not what the camera sees, and is dropped"
    RELOCALIZED = "re-localised: many rejected poses agreed with each other"


ACCEPTING = frozenset({AnswerOutcome.ACCEPTED, AnswerOutcome.ALONE, AnswerOutcome.RELOCALIZED})
"""Outcomes with which the answer is in the graph."""
_ELSEWHERE = frozenset({AnswerOutcome.CONTRADICTS, AnswerOutcome.REJECTED})


def doubted(
    estimate: PoseEstimate | None, answers: Sequence[PoseEstimate], outcomes: Sequence[AnswerOutcome]
) -> PoseEstimate | None:
    """The estimate as far as it can be trusted beside the answers to its frame that it was not made of.

    With the probability that such an answer gives itself (``confidence``) the camera is there instead: the covariance
    is that of both together, about the estimate. A robot that was carried away is told before the answers agree.
    """
    if estimate is None or estimate.covariance is None:
        return estimate
    covariance = estimate.covariance
    for answer, outcome in zip(answers, outcomes, strict=True):
        if outcome in _ELSEWHERE and answer.confidence and answer.stamp_ns == estimate.stamp_ns:
            residual = (estimate.T_map_cam.inverse() @ answer.T_map_cam).log()
            covariance = covariance + answer.confidence * np.outer(residual, residual)
    return replace(estimate, covariance=covariance)


class Gate:
    """Compares absolute poses with what was predicted, and remembers what it was told of them.

    Args:
        config: thresholds.
        lag_s: how long estimates of past frames are kept, for answers that come late.
        alone: every frame stands for itself: no other one will ever confirm its pose, which is given with its doubt.
    """

    def __init__(self, config: GateConfig, lag_s: float, alone: bool = False) -> None:
        self._alone = alone
        self._lag_ns = int(lag_s * 1e9)
        self._past: dict[int, PoseEstimate] = {}
        self._rejected = Hypotheses(self._near, config.start_confidence)
        self.reconfigure(config)

    def reconfigure(self, config: GateConfig) -> None:
        """Other thresholds from now on."""
        self._config = config
        self._rejected.reconfigure(config.start_confidence)
        self._limit = chi2_quantile(config.probability, 6)

    def believes(self, answer: PoseEstimate, predicted: PoseEstimate | None) -> bool:
        """True for a pose inside the gate around the prediction for its frame, and where there is none. Where a vague
        prediction allows a jump, the pose has to be as sure as one to start from.

        Args:
            answer: the pose.
            predicted: where the newest frame should be, None when nobody knows; an answer for an earlier frame is
                compared with the estimate of that one.
        """
        if predicted is None or predicted.stamp_ns != answer.stamp_ns:
            predicted = self._past.get(answer.stamp_ns)
        if predicted is None:
            return True
        return self._near(predicted, answer) and (self._sure(answer) or not _is_jump(predicted, answer))

    def believes_start(self, answer: PoseEstimate) -> bool:
        """True for a pose to start from: it is sure enough of itself, or its method knows no confidence, or nothing
        would ever confirm it."""
        return self._alone or self._sure(answer)

    def contradicts(self, answer: PoseEstimate) -> bool:
        """True for a pose that leaves no other one undoubted: what a map is told to accept is as sure as that."""
        return answer.confidence is not None and answer.confidence >= _CONTRADICTS

    def undoubted(self, answer: PoseEstimate | None) -> PoseEstimate | None:
        """An answer that leaves no other pose undoubted, else None."""
        return answer if answer is not None and self.contradicts(answer) else None

    def reject(
        self, answer: PoseEstimate, bring_forward: Callable[[PoseEstimate], PoseEstimate | None]
    ) -> None:
        """Note a pose that was not believed.

        Args:
            answer: the pose, of the newest frame.
            bring_forward: moves a pose to that frame, None where the motion since is not known.
        """
        self._rejected.add(answer, bring_forward)

    def unfound(self) -> None:
        """Note a frame that was looked for in the whole map, and not found: it confirms no rejected pose."""
        self._rejected.unfound()

    def rejected_agree(self, tracking: bool) -> bool:
        """True when so many rejected poses agree that they are right and the prediction is wrong.

        Args:
            tracking: there is a prediction that they contradict, so that they must be sure and agree over a distance;
                else they only lack confidence.
        """
        count = self._config.agreeing_rejections if tracking else AGREEING_STARTS
        return self._rejected.agreeing(count, contradicting=tracking)

    def accepted(self, answer: PoseEstimate) -> AnswerOutcome:
        """Note that a pose was believed, and say so: rejected ones before it confirm nothing any more."""
        self._rejected.clear()
        return AnswerOutcome.ALONE if self._alone and not self._sure(answer) else AnswerOutcome.ACCEPTED

    def remember(self, estimate: PoseEstimate | None, stamp_ns: int) -> None:
        """Keep the estimate of the frame at ``stamp_ns``, and drop what is older than the lag."""
        if estimate is not None and estimate.covariance is not None:
            self._past[stamp_ns] = estimate
        while self._past and next(iter(self._past)) < stamp_ns - self._lag_ns:
            del self._past[next(iter(self._past))]

    def reset(self) -> None:
        """Forget all estimates and all rejected poses."""
        self._past.clear()
        self._rejected.clear()

    def _sure(self, answer: PoseEstimate) -> bool:
        return answer.confidence is None or answer.confidence >= self._config.start_confidence

    def _near(self, a: PoseEstimate, b: PoseEstimate) -> bool:
        distance = squared_mahalanobis(a, b)
        return distance is not None and distance < self._limit


def _is_jump(a: PoseEstimate, b: PoseEstimate) -> bool:
    """Whether the two are so far apart that one of them is wrong: the pose was found anew, not carried on."""
    return a.T_map_cam.distance_to(b.T_map_cam) > WRONG_M or a.T_map_cam.angle_to(b.T_map_cam) > np.radians(
        WRONG_DEG
    )


def squared_mahalanobis(a: PoseEstimate, b: PoseEstimate) -> float | None:
    """Squared Mahalanobis distance of two poses under the sum of their covariances; None where one has none."""
    if a.covariance is None or b.covariance is None:
        return None
    residual = (a.T_map_cam.inverse() @ b.T_map_cam).log()
    return float(residual @ np.linalg.solve(a.covariance + b.covariance, residual))
