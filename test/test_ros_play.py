"""The player's sense of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.ros.play import PlayOptions, play

LATER_NS = 3_600_000_000_000


class TwoDrives:
    """A recording whose second half was driven an hour later; a ``FrameSource``."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.path, self.format, self.camera = source.path, source.format, source.camera
        self.ground_truth, self.T_base_cam = source.ground_truth, source.T_base_cam
        self.odometry: Trajectory | None = None
        self.splits: Sequence[str] = ()
        self.records: Sequence[FrameRecord] = [
            replace(r, stamp_ns=r.stamp_ns + self._later(i)) for i, r in enumerate(source.records)
        ]

    def _later(self, index: int) -> int:
        return LATER_NS if index >= len(self._source.records) // 2 else 0

    def read(self, index: int) -> Frame:
        return replace(self._source.read(index), stamp_ns=self.records[index].stamp_ns)

    def split(self, name: str) -> FrameSource:
        return self


def test_nobody_waits_an_hour_between_two_drives(tiny_source: FrameSource) -> None:
    stamps: list[int] = []
    report = play(TwoDrives(tiny_source), PlayOptions(rate=4.0), on_image=stamps.append)
    assert report.frames == len(tiny_source.records)
    assert stamps[-1] - stamps[0] > LATER_NS  # stamps stay the recording's
    assert report.wall_s < 60.0
