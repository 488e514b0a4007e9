"""Answers beside the truth: the form in which all metrics see a run.

Motion is only compared within one sequence. Sequences are never bridged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array

RPE_INTERVAL_NS = 1_000_000_000
"""Time over which the error of a motion is measured."""

RPE_TOLERANCE_NS = 50_000_000
"""How far two frames may be from being ``RPE_INTERVAL_NS`` apart; at 30 Hz and more they always are nearer."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One frame as the metrics see it.

    Attributes:
        sequence: the continuous recording the frame belongs to.
        stamp_ns: of the image.
        T_map_true: ground truth of the camera, None where there is none.
        T_map_cam: the answer, None when there was none.
        covariance: (6, 6) in the tangent of ``T_map_cam`` (rotation first), or None.
        confidence: 0..1 that the localizer had in its answer to this frame, None where it had none to give.
    """

    sequence: str
    stamp_ns: int
    T_map_true: SE3 | None
    T_map_cam: SE3 | None
    covariance: Array | None = None
    confidence: float | None = None

    @property
    def error_m(self) -> float:
        """Distance between answer and truth, metres; NaN when either is missing."""
        if self.T_map_true is None or self.T_map_cam is None:
            return float("nan")
        return self.T_map_true.distance_to(self.T_map_cam)

    @property
    def error_deg(self) -> float:
        """Angle between answer and truth, degrees; NaN when either is missing."""
        if self.T_map_true is None or self.T_map_cam is None:
            return float("nan")
        return float(np.degrees(self.T_map_true.angle_to(self.T_map_cam)))

    @property
    def wrong(self) -> bool | None:
        """Whether the answer is further off than ``WRONG_M`` or ``WRONG_DEG``; None when answer or truth is missing."""
        if self.T_map_true is None or self.T_map_cam is None:
            return None
        return not (self.error_m <= WRONG_M and self.error_deg <= WRONG_DEG)


def nees(answer: Answer) -> float | None:
    """Normalized estimation error squared of one answer, ``r^T S^-1 r`` with ``r = log(T_est^-1 T_true)``.

    It has six degrees of freedom. None when answer, truth or covariance is missing; infinite when the covariance is
    singular or not positive, which claims a certainty that no answer has.
    """
    if answer.T_map_true is None or answer.T_map_cam is None or answer.covariance is None:
        return None
    r = (answer.T_map_cam.inverse() @ answer.T_map_true).log()
    try:
        L = np.linalg.cholesky(answer.covariance)
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.sum(np.linalg.solve(L, r) ** 2))


def sigmas(covariance: Array | None) -> tuple[float | None, float | None]:
    """Standard deviation in the most uncertain direction: position (m) and rotation (deg).

    Args:
        covariance: (6, 6), rotation first; None gives None twice.
    """
    if covariance is None:
        return None, None
    rotation = math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance[:3, :3])[-1])))
    translation = math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance[3:, 3:])[-1])))
    return translation, math.degrees(rotation)


def sequences(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """The frames of each sequence in turn; a name that comes back later is another sequence."""
    current: list[Answer] = []
    for answer in answers:
        if current and answer.sequence != current[-1].sequence:
            yield current
            current = []
        current.append(answer)
    if current:
        yield current


def adjacent_pairs(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Neighbouring frames of one sequence that both have an answer and ground truth."""
    for sequence in sequences(answers):
        for a, b in itertools.pairwise(sequence):
            if None not in (a.T_map_cam, a.T_map_true, b.T_map_cam, b.T_map_true):
                yield a, b


def pairs_apart(
    answers: Sequence[Answer], interval_ns: int, tolerance_ns: int = RPE_TOLERANCE_NS
) -> Iterator[tuple[Answer, Answer]]:
    """Pairs of frames of one sequence whose stamps are ``interval_ns`` apart, as far as frames are that dense."""
    for sequence in sequences(answers):
        stamps = np.array([a.stamp_ns for a in sequence], dtype=np.int64)
        for i, a in enumerate(sequence):
            target = a.stamp_ns + interval_ns
            right = int(np.searchsorted(stamps, target))
            near = [k for k in (right - 1, right) if i < k < len(sequence)]
            j = min(near, key=lambda k: abs(int(stamps[k]) - target), default=None)
            if j is not None and abs(int(stamps[j]) - target) <= tolerance_ns:
                yield a, sequence[j]


def true_motion(a: Answer, b: Answer) -> SE3:
    """``T_a_b`` by the ground truth, which both must have."""
    assert a.T_map_true is not None and b.T_map_true is not None
    return a.T_map_true.inverse() @ b.T_map_true


def answered_motion(a: Answer, b: Answer) -> SE3:
    """``T_a_b`` by the answers, which both must have."""
    assert a.T_map_cam is not None and b.T_map_cam is not None
    return a.T_map_cam.inverse() @ b.T_map_cam


def motion_errors(
    answers: Sequence[Answer], interval_ns: int = RPE_INTERVAL_NS, tolerance_ns: int = RPE_TOLERANCE_NS
) -> tuple[Array, Array]:
    """Errors of the motion over an interval, within each sequence: (N,) metres and (N,) degrees.

    Each frame is paired with the one whose stamp is closest to ``interval_ns`` later, if that is within
    ``tolerance_ns``; both must have an answer and ground truth. The error is the transform
    ``(T_true_i^-1 T_true_j)^-1 (T_est_i^-1 T_est_j)``, the relative pose error of Sturm et al., IROS 2012.
    """
    errors_m, errors_deg = [], []
    for a, b in pairs_apart(answers, interval_ns, tolerance_ns):
        if None in (a.T_map_true, a.T_map_cam, b.T_map_true, b.T_map_cam):
            continue
        error = true_motion(a, b).inverse() @ answered_motion(a, b)
        errors_m.append(float(np.linalg.norm(error.t)))
        errors_deg.append(float(np.degrees(SE3.identity().angle_to(error))))
    return np.array(errors_m), np.array(errors_deg)


# --- statistics that are None where there is nothing to compute them from ---


def statistic(function: Callable[[Array], Any], values: Array) -> float | None:
    """``function(values)``; None of no values, and where the result is not finite."""
    if not values.size:
        return None
    with np.errstate(invalid="ignore"):  # between two infinities there is no percentile
        value = float(function(values))
    return value if np.isfinite(value) else None


def rms(values: Array) -> float:
    """Root mean square of (N,) values."""
    return float(np.sqrt(np.mean(values**2)))


def percentile_90(values: Array) -> float:
    """90th percentile of (N,) values."""
    return float(np.percentile(values, 90))


def percentiles(values: ArrayLike, *percents: float) -> dict[str, float | None]:
    """``{"p50": ...}`` of the values that are not NaN; None where there are none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[~np.isnan(finite)]
    return {f"p{p:g}": float(np.percentile(finite, p)) if finite.size else None for p in percents}
