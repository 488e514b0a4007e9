"""Numbers that say how good a run of answers is.

Conventions, all of which the report states beside the numbers:

- A frame without an answer is a failure in every recall, and is excluded from medians, means and percentiles.
- Nothing is aligned: the map frame of the scene is the frame of the ground truth, and a constant offset is an
  error.
- Motion is only compared within one sequence. Sequences are never bridged.
- A frame without ground truth is run and counted, but no accuracy is computed from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from localizer_ros.core.se3 import SE3

Array = NDArray[np.float64]

RECALLS = {
    "5cm_5deg": (0.05, 5.0),
    "10cm_5deg": (0.10, 5.0),
    "25cm_2deg": (0.25, 2.0),
    "50cm_5deg": (0.50, 5.0),
}
"""Name -> (metres, degrees); an answer counts when both errors are at most these."""

JUMP_M, JUMP_DEG = 0.2, 5.0
"""Step of the error between two answers, beyond which a consumer sees the robot jump."""

WRONG_M, WRONG_DEG = 0.5, 10.0
"""An answer further off than either is wrong: it would have been better to give none."""

NEES_EXPECTED_MEDIAN = 5.348
"""Median of the chi-square distribution with six degrees of freedom: the NEES of an honest covariance."""

VIEW_DEG_PER_M = 40.0
"""Change of angle that makes a view as unlike as one metre does; for finding the mapping pose most alike."""

OFF_PATH_M = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
OFF_PATH_DEG = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0)
"""Edges of the bins by distance and angle to the mapping pose most alike; the last is open."""

RPE_INTERVAL_NS = 1_000_000_000
RPE_TOLERANCE_NS = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One frame as the metrics see it.

    Attributes:
        sequence: the continuous drive the frame belongs to.
        stamp_ns: of the image.
        T_map_true: ground truth of the camera, None where there is none.
        T_map_cam: the answer, None when there was none.
        covariance: (6, 6) in the tangent of ``T_map_cam`` (rotation first), or None.
    """

    sequence: str
    stamp_ns: int
    T_map_true: SE3 | None
    T_map_cam: SE3 | None
    covariance: Array | None = None

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


@dataclass(frozen=True, slots=True)
class Metrics:
    """All numbers of one run; None where there is nothing to compute it from.

    Attributes:
        frames: frames that were run.
        frames_with_truth: of these, frames with ground truth; recalls are fractions of them.
        answered: frames with an answer.
        median_t_m: median distance of the answers to the truth; ``mean_`` and ``p90_`` likewise.
        median_r_deg: median angle of the answers to the truth.
        recall: see ``RECALLS``; unanswered frames are failures.
        wrong_fraction: answers further off than ``WRONG_M`` or ``WRONG_DEG``, as a fraction of the answers.
        ate_rmse_m: root mean square of the distances, without any alignment.
        rpe_t_m: root mean square error of the motion over one second, translation.
        rpe_r_deg: the same, rotation.
        jitter_t_m: root mean square of the frame-to-frame step of the position error (what shakes a robot
            that follows the pose), between adjacent frames that are both answered.
        jitter_r_deg: the same of the rotation.
        jumps_per_min: steps between an answer and the next answer of the same sequence that differ from the
            true motion by more than ``JUMP_M`` or ``JUMP_DEG``, per minute of the time between them.
        nees_median: normalized estimation error squared, ``r^T S^-1 r`` with ``r = log(T_est^-1 T_true)``;
            ``NEES_EXPECTED_MEDIAN`` when the covariance is honest, more when it is too small.
    """

    frames: int = 0
    frames_with_truth: int = 0
    answered: int = 0
    median_t_m: float | None = None
    median_r_deg: float | None = None
    mean_t_m: float | None = None
    mean_r_deg: float | None = None
    p90_t_m: float | None = None
    p90_r_deg: float | None = None
    recall: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(RECALLS))
    wrong_fraction: float | None = None
    ate_rmse_m: float | None = None
    rpe_t_m: float | None = None
    rpe_r_deg: float | None = None
    jitter_t_m: float | None = None
    jitter_r_deg: float | None = None
    jumps_per_min: float | None = None
    nees_median: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compute_metrics(answers: Sequence[Answer]) -> Metrics:
    """All metrics of frames in order of time, sequence by sequence."""
    judged = [a for a in answers if a.T_map_true is not None]
    errors_m = np.array([a.error_m for a in judged if a.T_map_cam is not None])
    errors_deg = np.array([a.error_deg for a in judged if a.T_map_cam is not None])
    rpe_m, rpe_deg = motion_errors(answers)
    adjacent = list(_adjacent(answers))
    steps_m, steps_deg = _steps(adjacent)
    return Metrics(
        frames=len(answers),
        frames_with_truth=len(judged),
        answered=sum(a.T_map_cam is not None for a in answers),
        median_t_m=_of(np.median, errors_m),
        median_r_deg=_of(np.median, errors_deg),
        mean_t_m=_of(np.mean, errors_m),
        mean_r_deg=_of(np.mean, errors_deg),
        p90_t_m=_of(_p90, errors_m),
        p90_r_deg=_of(_p90, errors_deg),
        recall={
            name: float(np.count_nonzero((errors_m <= m) & (errors_deg <= deg)) / len(judged))
            if judged
            else None
            for name, (m, deg) in RECALLS.items()
        },
        wrong_fraction=_of(np.mean, ((errors_m > WRONG_M) | (errors_deg > WRONG_DEG)).astype(np.float64)),
        ate_rmse_m=_of(_rms, errors_m),
        rpe_t_m=_of(_rms, rpe_m),
        rpe_r_deg=_of(_rms, rpe_deg),
        jitter_t_m=_of(_rms, steps_m),
        jitter_r_deg=_of(_rms, steps_deg),
        jumps_per_min=jumps_per_minute(answers),
        nees_median=_of(np.median, np.array([n for a in judged if (n := nees(a)) is not None])),
    )


def nees(answer: Answer) -> float | None:
    """Normalized estimation error squared of one answer, 6 degrees of freedom.

    None when answer, truth or covariance is missing; infinite when the covariance is singular or not
    positive, which claims a certainty that no answer has.
    """
    if answer.T_map_true is None or answer.T_map_cam is None or answer.covariance is None:
        return None
    r = (answer.T_map_cam.inverse() @ answer.T_map_true).log()
    try:
        L = np.linalg.cholesky(answer.covariance)
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.sum(np.linalg.solve(L, r) ** 2))


def motion_errors(
    answers: Sequence[Answer], interval_ns: int = RPE_INTERVAL_NS, tolerance_ns: int = RPE_TOLERANCE_NS
) -> tuple[Array, Array]:
    """Errors of the motion over an interval, within each sequence.

    Each frame is paired with the one whose stamp is closest to ``interval_ns`` later, if that is within
    ``tolerance_ns``; both must have an answer and ground truth. The error is the transform
    ``(T_true_i^-1 T_true_j)^-1 (T_est_i^-1 T_est_j)``.

    Returns:
        (N,) metres and (N,) degrees.
    """
    errors_m, errors_deg = [], []
    for sequence in sequences(answers):
        stamps = np.array([a.stamp_ns for a in sequence], dtype=np.int64)
        for i, a in enumerate(sequence):
            target = a.stamp_ns + interval_ns
            right = int(np.searchsorted(stamps, target))
            near = [k for k in (right - 1, right) if i < k < len(sequence)]
            j = min(near, key=lambda k: abs(int(stamps[k]) - target), default=None)
            if j is None or abs(int(stamps[j]) - target) > tolerance_ns:
                continue
            b = sequence[j]
            if a.T_map_true is None or a.T_map_cam is None or b.T_map_true is None or b.T_map_cam is None:
                continue
            T_i_j_true = a.T_map_true.inverse() @ b.T_map_true
            T_i_j_est = a.T_map_cam.inverse() @ b.T_map_cam
            error = T_i_j_true.inverse() @ T_i_j_est
            errors_m.append(float(np.linalg.norm(error.t)))
            errors_deg.append(float(np.degrees(SE3.identity().angle_to(error))))
    return np.array(errors_m), np.array(errors_deg)


def jumps_per_minute(answers: Sequence[Answer]) -> float | None:
    """See ``Metrics.jumps_per_min``; None when no two answers of a sequence follow each other.

    A gap without answers between the two does not excuse the step: the consumer sees the pose before and
    after it.
    """
    pairs = [
        pair
        for sequence in sequences(
            [a for a in answers if a.T_map_cam is not None and a.T_map_true is not None]
        )
        for pair in itertools.pairwise(sequence)
    ]
    if not pairs:
        return None
    steps_m, steps_deg = _steps(pairs)
    minutes = sum(b.stamp_ns - a.stamp_ns for a, b in pairs) / 60e9
    if minutes <= 0.0:
        return None
    return float(np.count_nonzero((steps_m > JUMP_M) | (steps_deg > JUMP_DEG)) / minutes)


def view_change(T_map_cam: SE3, mapping: Sequence[SE3]) -> tuple[int, float, float]:
    """How far a view is off what was mapped: index of the mapping pose most alike, metres and degrees to it.

    Alike is the sum of distance and angle with ``VIEW_DEG_PER_M`` degrees counting as one metre.

    Raises:
        ValueError: no mapping poses.
    """
    if not mapping:
        raise ValueError("view_change: no mapping poses")
    metres = np.linalg.norm(np.stack([T.t for T in mapping]) - T_map_cam.t, axis=1)
    # The trace is good enough to rank by; the angle that is returned is the accurate one.
    cosines = (np.einsum("nij,ij->n", np.stack([T.R for T in mapping]), T_map_cam.R) - 1.0) / 2.0
    degrees = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    best = int(np.argmin(metres + degrees / VIEW_DEG_PER_M))
    return best, float(metres[best]), float(np.degrees(mapping[best].angle_to(T_map_cam)))


def off_path_table(answers: Sequence[Answer], mapping: Sequence[SE3]) -> list[dict[str, Any]]:
    """Accuracy by how far the true view is off the nearest mapping pose.

    Returns:
        One row a bin that has frames: ``by`` (``distance_m`` or ``angle_deg``), ``from``, ``to`` (None = no
        limit), ``frames``, ``answered``, ``median_t_m``, ``median_r_deg``, ``recall_50cm_5deg``.
    """
    judged = [a for a in answers if a.T_map_true is not None]
    if not judged or not mapping:
        return []
    changes = np.array([view_change(a.T_map_true, mapping)[1:] for a in judged if a.T_map_true is not None])
    rows: list[dict[str, Any]] = []
    for column, (by, edges) in enumerate((("distance_m", OFF_PATH_M), ("angle_deg", OFF_PATH_DEG))):
        for low, high in zip(edges, (*edges[1:], None), strict=True):
            inside = (changes[:, column] >= low) & (changes[:, column] < (np.inf if high is None else high))
            chosen = [a for a, take in zip(judged, inside, strict=True) if take]
            if not chosen:
                continue
            metrics = compute_metrics(chosen)
            rows.append(
                {
                    "by": by,
                    "from": low,
                    "to": high,
                    "frames": metrics.frames,
                    "answered": metrics.answered,
                    "median_t_m": metrics.median_t_m,
                    "median_r_deg": metrics.median_r_deg,
                    "recall_50cm_5deg": metrics.recall["50cm_5deg"],
                }
            )
    return rows


def percentiles(values: ArrayLike, *percents: float) -> dict[str, float | None]:
    """``{"p50": ...}`` of the values that are not NaN; None where there are none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[~np.isnan(finite)]
    return {f"p{p:g}": float(np.percentile(finite, p)) if finite.size else None for p in percents}


def sequences(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """The frames of each sequence in turn; a name that comes back later is another drive."""
    current: list[Answer] = []
    for answer in answers:
        if current and answer.sequence != current[-1].sequence:
            yield current
            current = []
        current.append(answer)
    if current:
        yield current


def _adjacent(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    for sequence in sequences(answers):
        for a, b in itertools.pairwise(sequence):
            if None not in (a.T_map_cam, a.T_map_true, b.T_map_cam, b.T_map_true):
                yield a, b


def _steps(pairs: Sequence[tuple[Answer, Answer]]) -> tuple[Array, Array]:
    """Difference of the estimated and the true motion of each pair: metres and degrees.

    The translation is compared in the map frame, so that a constant error of orientation, which makes no pose
    jump, is not multiplied by the distance driven.
    """
    steps_m, steps_deg = [], []
    for a, b in pairs:
        assert a.T_map_true and a.T_map_cam and b.T_map_true and b.T_map_cam
        step = (b.T_map_cam.t - a.T_map_cam.t) - (b.T_map_true.t - a.T_map_true.t)
        steps_m.append(float(np.linalg.norm(step)))
        motion_true = SE3(a.T_map_true.R.T @ b.T_map_true.R, np.zeros(3))
        motion_est = SE3(a.T_map_cam.R.T @ b.T_map_cam.R, np.zeros(3))
        steps_deg.append(float(np.degrees(motion_true.angle_to(motion_est))))
    return np.array(steps_m), np.array(steps_deg)


def _of(function: Callable[[Array], Any], values: Array) -> float | None:
    if not values.size:
        return None
    value = float(function(values))
    return value if np.isfinite(value) else None


def _p90(values: Array) -> float:
    return float(np.percentile(values, 90))


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
