"""How well motions alone, without a map, add up to the path.

A segment is a part of a sequence in which every motion is known; it ends where one is unknown and never bridges
sequences.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.evaluation.answers import (
    RPE_INTERVAL_NS,
    Answer,
    answered_motion,
    motion_errors,
    nees,
    pairs_apart,
    rms,
    sequences,
    statistic,
    true_motion,
)


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
        drift_percent: distance by which the motions miss the ends of the segments, added up over the segments, in
            percent of the path.
        ate_rmse_m: root mean square of the distances to the truth when the first answer of each segment is carried on
            by the motions alone, without any alignment: what is left without a graph.
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
    """Metrics of the motions of one source against the ground truth.

    Args:
        frames: in order of time, sequence by sequence; of their answers only the first of each segment is looked at.
        motions: one a frame, that ends with it; None where it is unknown.
        lengths: see :class:`OdometryMetrics`.
    """
    segments = dead_reckoning(frames, motions)
    errors_m, errors_deg = motion_errors(segments)
    carried = [a.error_m for a in _carried_on(frames, segments) if a.T_map_true is not None]
    return OdometryMetrics(
        lengths=lengths,
        frames=sum(len(sequence) - 1 for sequence in sequences(frames)),
        motions=sum(len(segment) - 1 for segment in sequences(segments)),
        rpe_t_m=statistic(rms, errors_m),
        rpe_r_deg=statistic(rms, errors_deg),
        rpe_median_t_m=statistic(np.median, errors_m),
        rpe_median_r_deg=statistic(np.median, errors_deg),
        drift_percent=_drift_percent(segments),
        ate_rmse_m=statistic(rms, np.array(carried)),
        nees_median=statistic(np.median, np.array(list(_motion_nees(segments, motions, None)))),
        nees_1s_median=statistic(np.median, np.array(list(_motion_nees(segments, motions, RPE_INTERVAL_NS)))),
    )


def dead_reckoning(frames: Sequence[Answer], motions: Sequence[Motion | None]) -> list[Answer]:
    """The segments as motions alone give them, each a sequence of its own that begins at its origin.

    Args:
        frames: in order of time, sequence by sequence.
        motions: one a frame, that ends with it; None where it is unknown.

    Returns:
        Frames whose answers are poses in the origin of their segment. Segments of a single frame are left out.
    """
    segments: list[list[Answer]] = []
    poses: dict[int, SE3] = {}
    sequence: str | None = None
    for frame, motion in zip(frames, motions, strict=True):
        if frame.sequence != sequence:
            poses, sequence = {}, frame.sequence
        T_origin_prev = None if motion is None else poses.get(motion.stamp_prev_ns)
        if motion is None or T_origin_prev is None:
            poses = {frame.stamp_ns: SE3.identity()}
            segments.append([])
        else:
            poses[frame.stamp_ns] = T_origin_prev @ motion.T_prev_cur
        name = f"{frame.sequence} {len(segments)}"
        segments[-1].append(Answer(name, frame.stamp_ns, frame.T_map_true, poses[frame.stamp_ns]))
    return [answer for segment in segments if len(segment) > 1 for answer in segment]


def _drift_percent(segments: Sequence[Answer]) -> float | None:
    missed_m = path_m = 0.0
    for segment in sequences(segments):
        known = [a for a in segment if a.T_map_true is not None]
        if len(known) > 1:
            missed_m += true_motion(known[0], known[-1]).distance_to(answered_motion(known[0], known[-1]))
            positions = np.stack([a.T_map_true.t for a in known if a.T_map_true is not None])
            path_m += float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    return 100.0 * missed_m / path_m if path_m > 0.0 else None


def _carried_on(frames: Sequence[Answer], segments: Sequence[Answer]) -> Iterator[Answer]:
    """The segments, each in the map from its first frame that has an answer; that frame itself is left out."""
    answers = {frame.stamp_ns: frame.T_map_cam for frame in frames}
    for segment in sequences(segments):
        T_map_origin: SE3 | None = None
        for step in segment:
            assert step.T_map_cam is not None
            answer = answers.get(step.stamp_ns)
            if T_map_origin is not None:
                yield replace(step, T_map_cam=T_map_origin @ step.T_map_cam)
            elif answer is not None:
                T_map_origin = answer @ step.T_map_cam.inverse()


def _motion_nees(
    segments: Sequence[Answer], motions: Sequence[Motion | None], interval_ns: int | None
) -> Iterator[float]:
    """NEES of the motions added up over an interval, None for single ones; of segments whose motions join up frame by
    frame and have covariances."""
    covariances = {(m.stamp_prev_ns, m.stamp_cur_ns): m.covariance for m in motions if m is not None}
    for segment in sequences(segments):
        # Errors of all motions seen from the segment's origin: what lies between two frames is a difference of sums.
        total, sums = np.zeros((6, 6)), {segment[0].stamp_ns: np.zeros((6, 6))}
        for a, b in itertools.pairwise(segment):
            S = covariances.get((a.stamp_ns, b.stamp_ns))
            if S is None or b.T_map_cam is None:
                return
            adjoint = b.T_map_cam.adjoint()
            total = total + adjoint @ S @ adjoint.T
            sums[b.stamp_ns] = total
        pairs = itertools.pairwise(segment) if interval_ns is None else pairs_apart(segment, interval_ns)
        for a, b in pairs:
            if a.T_map_true is None or b.T_map_true is None or b.T_map_cam is None:
                continue
            adjoint = b.T_map_cam.inverse().adjoint()
            S = adjoint @ (sums[b.stamp_ns] - sums[a.stamp_ns]) @ adjoint.T
            motion = Answer(b.sequence, b.stamp_ns, true_motion(a, b), answered_motion(a, b), 0.5 * (S + S.T))
            value = nees(motion)
            if value is not None:
                yield value
