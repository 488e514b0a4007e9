"""Recordings made of others: with poses from elsewhere (structure from motion, a SLAM), or their first frames only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.source import FrameRecord, FrameSource, Stamps, frame_names


class SourceWithPoses:
    """The frames of a recording that a trajectory covers, with its poses; a ``FrameSource``.

    Args:
        source: the recording; its own poses are not looked at.
        trajectory: ``T_map_cam`` by the recording's stamps; interpolated between its poses.
        ground_truth: what the poses are, for reports.

    Raises:
        SourceError: the trajectory covers no frame.
    """

    def __init__(self, source: FrameSource, trajectory: Trajectory, ground_truth: str) -> None:
        self._source = source
        found = [(i, r, trajectory.at(r.stamp_ns)) for i, r in enumerate(source.records)]
        covered = [(i, r, T) for i, r, T in found if T is not None]
        if not covered:
            raise SourceError(
                f"{source.path}: the trajectory covers none of its {len(source.records)} frames"
            )
        self._indices = [i for i, _, _ in covered]
        self.records: Sequence[FrameRecord] = [
            FrameRecord(r.name, r.sequence, r.stamp_ns, T) for _, r, T in covered
        ]
        self.path: Path = source.path
        self.format, self.camera, self.ground_truth = source.format, source.camera, ground_truth
        self.stamps: Stamps = source.stamps
        self.odometry: Trajectory | None = source.odometry
        self.T_base_cam: SE3 | None = source.T_base_cam
        self.splits: Sequence[str] = source.splits
        self.frames = frame_names(source)
        self._trajectory = trajectory

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        return self._source.read(self._indices[index])

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return SourceWithPoses(self._source.split(name), self._trajectory, self.ground_truth)


class FirstFrames:
    """The first frames of a recording; a ``FrameSource``.

    Args:
        source: the recording.
        count: at most this many.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        self._source, self._count = source, count
        self.records: Sequence[FrameRecord] = source.records[:count]
        self.path: Path = source.path
        self.format, self.camera, self.ground_truth = source.format, source.camera, source.ground_truth
        self.stamps: Stamps = source.stamps
        self.odometry: Trajectory | None = source.odometry
        self.T_base_cam: SE3 | None = source.T_base_cam
        self.splits: Sequence[str] = source.splits
        self.frames = frame_names(source)

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        return self._source.read(index)

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``; the first frames of that part."""
        return FirstFrames(self._source.split(name), self._count)
