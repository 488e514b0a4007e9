"""The one loop over a recording: evaluation, replay, benchmark and comparison all run frames through this one.

A frame is handled as the node handles it: the odometry up to its stamp first, then the frame itself. A frame that
cannot be read or that the localizer rejects is dropped and counted, and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, ConfigError, Frame, FrameRejected, LocalizerOutput, SourceError
from localizer_ros.datasets.source import FrameRecord, FrameSource

UNREADABLE = "unreadable"
"""Why a frame was dropped whose image could not be read."""

# Odometry this long before the first frame is fed, so that a motion ends with it; more would not be used.
_ODOMETRY_BEFORE_NS = 1_000_000_000


class FrameLocalizer(Protocol):
    """What running a recording needs of ``localization.Localizer``."""

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to one frame. Raises FrameRejected."""
        ...

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """A pose of the external odometry."""
        ...

    def reset(self) -> None:
        """Forget all past frames."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What became of one frame.

    Attributes:
        index: of the frame in the recording that was run.
        record: name, sequence, stamp and ground truth.
        output: the answer, None when the frame was dropped.
        dropped: short kind of the reason for which it was dropped, empty when it was not.
        message: the reason in words.
        latency_ms: wall time of ``Localizer.process``, reading the image not included; None when dropped.
    """

    index: int
    record: FrameRecord
    output: LocalizerOutput | None
    dropped: str = ""
    message: str = ""
    latency_ms: float | None = None


def run_localizer(
    localizer: FrameLocalizer,
    source: FrameSource,
    *,
    limit: int | None = None,
    bridge_sequences: bool = False,
    stage: str = "frames",
    progress: Progress = no_progress,
) -> Iterator[tuple[FrameResult, Frame | None]]:
    """What becomes of the frames of a recording, in order of time; each is run when its result is asked for.

    Args:
        localizer: freshly opened.
        source: the recording, already cut to a split.
        limit: at most this many frames, the first ones; None runs all.
        bridge_sequences: go on from one sequence to the next as a robot would that knows of no sequences; otherwise the
            localizer is reset between them.
        stage: what ``progress`` is told.
        progress: told of every frame after it was consumed.

    Yields:
        What became of each frame, and the frame itself; None where its image could not be read.

    Raises:
        ConfigError: ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: expected at least 1, got {limit}")
    records = source.records if limit is None else source.records[:limit]
    odometry = OdometryFeed(source)
    sequence: str | None = None
    for index, record in enumerate(records):
        if not bridge_sequences and sequence is not None and record.sequence != sequence:
            localizer.reset()
        sequence = record.sequence
        odometry.feed(localizer, record.stamp_ns)
        yield _run_frame(localizer, source, index, record)
        progress(stage, index + 1, len(records))


def _run_frame(
    localizer: FrameLocalizer, source: FrameSource, index: int, record: FrameRecord
) -> tuple[FrameResult, Frame | None]:
    try:
        frame = source.read(index)
    except FrameRejected as error:
        return FrameResult(index, record, None, error.kind, str(error)), None
    except SourceError as error:
        return FrameResult(index, record, None, UNREADABLE, str(error)), None
    began = time.perf_counter()
    try:
        output = localizer.process(frame)
    except FrameRejected as error:
        return FrameResult(index, record, None, error.kind, str(error)), frame
    latency_ms = (time.perf_counter() - began) * 1e3
    return FrameResult(index, record, output, latency_ms=latency_ms), frame


class OdometryFeed:
    """Gives a localizer the external odometry up to a time, each pose once.

    Args:
        source: the recording that is run.
    """

    def __init__(self, source: FrameSource) -> None:
        self._trajectory = source.odometry
        self._next = 0
        records = source.records
        if self._trajectory is not None and records:
            # A split that begins late in the recording must not be fed minutes of motion it does not use.
            begin = records[0].stamp_ns - _ODOMETRY_BEFORE_NS
            self._next = int(np.searchsorted(self._trajectory.stamps_ns, begin))

    def feed(self, localizer: FrameLocalizer, stamp_ns: int) -> None:
        """Everything up to and including ``stamp_ns``: what a live robot could have received."""
        trajectory = self._trajectory
        if trajectory is None:
            return
        while self._next < len(trajectory) and int(trajectory.stamps_ns[self._next]) <= stamp_ns:
            covariance = None if trajectory.covariances is None else trajectory.covariances[self._next]
            sample_ns, T_odom_base = int(trajectory.stamps_ns[self._next]), trajectory.poses[self._next]
            localizer.add_odometry(sample_ns, T_odom_base, covariance)
            self._next += 1
