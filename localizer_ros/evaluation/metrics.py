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
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

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
    for a, b in _apart(answers, interval_ns, tolerance_ns):
        if None in (a.T_map_true, a.T_map_cam, b.T_map_true, b.T_map_cam):
            continue
        error = _motion(a, b, true=True).inverse() @ _motion(a, b, true=False)
        errors_m.append(float(np.linalg.norm(error.t)))
        errors_deg.append(float(np.degrees(SE3.identity().angle_to(error))))
    return np.array(errors_m), np.array(errors_deg)


class Motion(NamedTuple):
    """Odometry as the metrics see it: how the camera moved between two of its frames.

    Attributes:
        stamp_prev_ns: of the earlier frame; not always the one just before.
        stamp_cur_ns: of the later frame.
        T_prev_cur: pose of the later camera in the earlier one.
        covariance: (6, 6) in the tangent of ``T_prev_cur`` (rotation first), or None.
    """

    stamp_prev_ns: int
    stamp_cur_ns: int
    T_prev_cur: SE3
    covariance: Array | None = None


@dataclass(frozen=True, slots=True)
class OdometryMetrics:
    """How well the motions of one source alone add up to the path; None where there is nothing to compute it from.

    Attributes:
        lengths: what the lengths of translations are from: ``own``, or ``odometry`` or ``ground truth`` for a source
            that knows directions only.
        frames: frames that have one before them in their sequence, so that a motion could be known.
        motions: of these, frames whose motion is known.
        rpe_t_m: root mean square error of the motion over one second, added up from the motions; translation.
        rpe_r_deg: the same, rotation.
        rpe_median_t_m: median of the same errors.
        rpe_median_r_deg: the same, rotation.
        drift_percent: distance by which the motions miss the ends of the drives, added up over the drives, in percent
            of the path. A drive ends where a motion is unknown.
        ate_rmse_m: root mean square of the distances to the truth of the first answer of each drive carried on by the
            motions alone, without any alignment: what is left without a graph.
        nees_median: of single motions; ``NEES_EXPECTED_MEDIAN`` when their covariance is honest.
        nees_1s_median: of motions over one second, whose errors are taken as independent.
    """

    lengths: str = "own"
    frames: int = 0
    motions: int = 0
    rpe_t_m: float | None = None
    rpe_r_deg: float | None = None
    rpe_median_t_m: float | None = None
    rpe_median_r_deg: float | None = None
    drift_percent: float | None = None
    ate_rmse_m: float | None = None
    nees_median: float | None = None
    nees_1s_median: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compute_odometry(
    frames: Sequence[Answer], motions: Sequence[Motion | None], lengths: str = "own"
) -> OdometryMetrics:
    """Motions of one source against the ground truth.

    Args:
        frames: in order of time, sequence by sequence; of their answers only the first of each drive is looked at.
        motions: one a frame, that ends with it; None where it is unknown.
        lengths: see :class:`OdometryMetrics`.
    """
    drives = chained(frames, motions)
    errors_m, errors_deg = motion_errors(drives)
    missed_m = path_m = 0.0
    for drive in sequences(drives):
        known = [a for a in drive if a.T_map_true is not None]
        if len(known) > 1:
            missed_m += _motion(known[0], known[-1], true=True).distance_to(
                _motion(known[0], known[-1], true=False)
            )
            positions = np.stack([a.T_map_true.t for a in known if a.T_map_true is not None])
            path_m += float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    return OdometryMetrics(
        lengths=lengths,
        frames=sum(len(sequence) - 1 for sequence in sequences(frames)),
        motions=sum(len(drive) - 1 for drive in sequences(drives)),
        rpe_t_m=_of(_rms, errors_m),
        rpe_r_deg=_of(_rms, errors_deg),
        rpe_median_t_m=_of(np.median, errors_m),
        rpe_median_r_deg=_of(np.median, errors_deg),
        drift_percent=100.0 * missed_m / path_m if path_m > 0.0 else None,
        ate_rmse_m=_of(
            _rms, np.array([a.error_m for a in _carried_on(frames, drives) if a.T_map_true is not None])
        ),
        nees_median=_of(np.median, np.array(list(_motion_nees(drives, motions, None)))),
        nees_1s_median=_of(np.median, np.array(list(_motion_nees(drives, motions, RPE_INTERVAL_NS)))),
    )


def _carried_on(frames: Sequence[Answer], drives: Sequence[Answer]) -> Iterator[Answer]:
    """The drives of :func:`chained`, each from its first frame that has an answer."""
    answers = {frame.stamp_ns: frame.T_map_cam for frame in frames}
    for drive in sequences(drives):
        T_map_origin: SE3 | None = None
        for step in drive:
            assert step.T_map_cam is not None
            answer = answers.get(step.stamp_ns)
            if T_map_origin is not None:
                yield replace(step, T_map_cam=T_map_origin @ step.T_map_cam)
            elif answer is not None:
                T_map_origin = answer @ step.T_map_cam.inverse()


def chained(frames: Sequence[Answer], motions: Sequence[Motion | None]) -> list[Answer]:
    """The drives as odometry alone gives them: each begins at its origin, and ends where a motion is unknown.

    Args:
        frames: in order of time, sequence by sequence.
        motions: one a frame, that ends with it; None where it is unknown.

    Returns:
        Frames with an answer, one sequence a drive; drives of a single frame are left out.
    """
    drives: list[list[Answer]] = []
    poses: dict[int, SE3] = {}
    sequence: str | None = None
    for frame, motion in zip(frames, motions, strict=True):
        if frame.sequence != sequence:
            poses, sequence = {}, frame.sequence
        T_origin_prev = None if motion is None else poses.get(motion.stamp_prev_ns)
        if motion is None or T_origin_prev is None:
            poses = {frame.stamp_ns: SE3.identity()}
            drives.append([])
        else:
            poses[frame.stamp_ns] = T_origin_prev @ motion.T_prev_cur
        name = f"{frame.sequence} {len(drives)}"
        drives[-1].append(Answer(name, frame.stamp_ns, frame.T_map_true, poses[frame.stamp_ns]))
    return [answer for drive in drives if len(drive) > 1 for answer in drive]


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


def _apart(
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


def _motion_nees(
    drives: Sequence[Answer], motions: Sequence[Motion | None], interval_ns: int | None
) -> Iterator[float]:
    """NEES of the motions added up over an interval, None for single ones; of drives whose motions join up frame by
    frame and have covariances."""
    covariances = {(m.stamp_prev_ns, m.stamp_cur_ns): m.covariance for m in motions if m is not None}
    for drive in sequences(drives):
        # Errors of all motions seen from the drive's origin: what lies between two frames is a difference of sums.
        total, sums = np.zeros((6, 6)), {drive[0].stamp_ns: np.zeros((6, 6))}
        for a, b in itertools.pairwise(drive):
            S = covariances.get((a.stamp_ns, b.stamp_ns))
            if S is None or b.T_map_cam is None:
                return
            adjoint = b.T_map_cam.adjoint()
            total = total + adjoint @ S @ adjoint.T
            sums[b.stamp_ns] = total
        pairs = itertools.pairwise(drive) if interval_ns is None else _apart(drive, interval_ns)
        for a, b in pairs:
            if a.T_map_true is None or b.T_map_true is None or b.T_map_cam is None:
                continue
            adjoint = b.T_map_cam.inverse().adjoint()
            S = adjoint @ (sums[b.stamp_ns] - sums[a.stamp_ns]) @ adjoint.T
            answer = Answer(
                b.sequence, b.stamp_ns, _motion(a, b, true=True), _motion(a, b, true=False), 0.5 * (S + S.T)
            )
            value = nees(answer)
            if value is not None:
                yield value


def _motion(a: Answer, b: Answer, true: bool) -> SE3:
    """From the frame of ``a`` to that of ``b``, by the ground truth or by the answers."""
    T_a, T_b = (a.T_map_true, b.T_map_true) if true else (a.T_map_cam, b.T_map_cam)
    assert T_a is not None and T_b is not None
    return T_a.inverse() @ T_b


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
