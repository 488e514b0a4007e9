"""Odometry by itself: what each source of motions measured in a run, against the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.geometric_vo import GeometricMotion
from localizer_ros.evaluation.odometry_metrics import Motion, OdometryMetrics, compute_odometry
from localizer_ros.evaluation.run_localizer import FrameResult

GEOMETRIC = "geometric"
"""Name of geometric visual odometry among the sources of motions."""


def odometry_by_source(
    frames: Sequence[FrameResult],
    raw: Sequence[Answer],
    geometric: Sequence[GeometricMotion | None],
    source: FrameSource,
) -> dict[str, OdometryMetrics]:
    """Metrics of the motions by what measured them; dropped frames are no part of it, motions bridge them.

    Args:
        frames: of the run.
        raw: N absolute answers to them; the first of each segment is where its motions begin.
        geometric: N motions of geometric visual odometry, None where it was not run or knows nothing.
        source: the recording, which gives those motions their lengths.
    """
    done = [i for i, frame in enumerate(frames) if frame.output is not None]
    answers = [raw[i] for i in done]
    measured = [
        {
            m.source: Motion(m.stamp_prev_ns, m.stamp_cur_ns, m.T_prev_cur, m.covariance)
            for m in output.motions
        }
        for frame in frames
        if (output := frame.output) is not None
    ]
    found = {
        name: compute_odometry(answers, [motions.get(name) for motions in measured])
        for name in dict.fromkeys(name for motions in measured for name in motions)
    }
    seen = [geometric[i] for i in done]
    if any(motion is not None for motion in seen):
        path, lengths = _path(source)
        motions = [None if motion is None else _in_metres(motion, path) for motion in seen]
        found[GEOMETRIC] = compute_odometry(answers, motions, lengths)
    return found


def _in_metres(motion: GeometricMotion, path: Callable[[int], SE3 | None]) -> Motion | None:
    """A motion with the length that ``path`` gives it, None where it gives none."""
    T_key, T_cur = path(motion.stamp_key_ns), path(motion.stamp_cur_ns)
    if T_key is None or T_cur is None:
        return None
    return Motion(motion.stamp_key_ns, motion.stamp_cur_ns, motion.scaled(T_key.distance_to(T_cur)))


def _path(source: FrameSource) -> tuple[Callable[[int], SE3 | None], str]:
    """The camera's path that gives directions their lengths, and what it is: external odometry where there is one,
    else the ground truth, which flatters them."""
    odometry, T_base_cam = source.odometry, source.T_base_cam
    if odometry is not None and T_base_cam is not None:

        def at(stamp_ns: int) -> SE3 | None:
            T_odom_base = odometry.at(stamp_ns)
            return None if T_odom_base is None else T_odom_base @ T_base_cam

        return at, "odometry"
    return {record.stamp_ns: record.T_map_cam for record in source.records}.get, "ground truth"
