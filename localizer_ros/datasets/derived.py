"""Recordings made of others: with poses from elsewhere (structure from motion, a SLAM), about another origin, or their
first frames only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Frame, SourceError
from localizer_ros.datasets.pose_coverage import MAX_GAP_NS, why_missing
from localizer_ros.datasets.source import FrameRecord, FrameSource, Stamps, broken_frames, frame_names


class _SomeFrames:
    """Some frames of a recording, with everything else that is known of it.

    Args:
        source: the recording.
        indices: of the frames, ascending.
        records: what is known of each.
    """

    def __init__(self, source: FrameSource, indices: Sequence[int], records: Sequence[FrameRecord]) -> None:
        self._source, self._indices = source, indices
        self.records: Sequence[FrameRecord] = records
        self.path: Path = source.path
        self.format, self.camera, self.ground_truth = source.format, source.camera, source.ground_truth
        self.stamps: Stamps = source.stamps
        self.odometry: Trajectory | None = source.odometry
        self.T_base_cam: SE3 | None = source.T_base_cam
        self.splits: Sequence[str] = source.splits
        self.frames = frame_names(source)
        self.details: dict[str, Any] = getattr(source, "details", {})
        self.problems: Sequence[str] = getattr(source, "problems", ())
        self.pose_problem: str | None = getattr(source, "pose_problem", None)
        self.broken: Mapping[str, str] = broken_frames(source)

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        return self._source.read(self._indices[index])


class ReadableFrames(_SomeFrames):
    """The frames of a recording whose images can be used; a ``FrameSource``."""

    def __init__(self, source: FrameSource) -> None:
        broken = broken_frames(source)
        kept = [i for i, record in enumerate(source.records) if record.name not in broken]
        super().__init__(source, kept, [source.records[i] for i in kept])
        self.broken = {}

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return readable(self._source.split(name))


def readable(source: FrameSource) -> FrameSource:
    """A recording without its broken frames; itself where it has none."""
    return ReadableFrames(source) if broken_frames(source) else source


class SourceWithPoses(_SomeFrames):
    """The frames of a recording that a trajectory covers, with its poses; a ``FrameSource``.

    Args:
        source: the recording; its own poses are not looked at.
        trajectory: ``T_map_cam`` by the recording's stamps; interpolated between its poses.
        ground_truth: what the poses are, for reports.

    Raises:
        SourceError: the trajectory covers no frame.
    """

    def __init__(self, source: FrameSource, trajectory: Trajectory, ground_truth: str) -> None:
        stamps = [record.stamp_ns for record in source.records]
        found = [(i, r, trajectory.at(r.stamp_ns, MAX_GAP_NS)) for i, r in enumerate(source.records)]
        covered = [(i, FrameRecord(r.name, r.sequence, r.stamp_ns, T)) for i, r, T in found if T is not None]
        if not covered:
            why = why_missing(ground_truth, trajectory.stamps_ns, stamps, len(stamps))
            raise SourceError(f"{source.path}: the trajectory covers none of its {len(stamps)} frames: {why}")
        super().__init__(source, [i for i, _ in covered], [record for _, record in covered])
        self.ground_truth = ground_truth
        # What was wrong with the recording's own poses does not matter any more.
        self.pose_problem = None
        missing = len(found) - len(covered)
        why = why_missing(ground_truth, trajectory.stamps_ns, stamps, missing)
        self.problems = [*self.problems, *([f"{why}: left out"] if why else [])]
        self._trajectory = trajectory

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return SourceWithPoses(self._source.split(name), self._trajectory, self.ground_truth)


class ShiftedSource(_SomeFrames):
    """A recording whose map frame has another origin; a ``FrameSource``.

    Args:
        source: the recording.
        origin_m: (3,) the new origin in the recording's map frame; axes stay.
    """

    def __init__(self, source: FrameSource, origin_m: Array) -> None:
        records = [
            replace(r, T_map_cam=None if r.T_map_cam is None else r.T_map_cam.shifted(-origin_m))
            for r in source.records
        ]
        super().__init__(source, range(len(records)), records)
        self._origin_m = origin_m

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return ShiftedSource(self._source.split(name), self._origin_m)


class FirstFrames(_SomeFrames):
    """The first frames of a recording; a ``FrameSource``.

    Args:
        source: the recording.
        count: at most this many.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        records = source.records[:count]
        super().__init__(source, range(len(records)), records)
        self._count = count

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``; the first frames of that part."""
        return FirstFrames(self._source.split(name), self._count)
