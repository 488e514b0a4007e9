"""The smoother's interface, and the one that does nothing."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from localizer_ros.core.types import PoseEstimate, RelativePose


class Smoother(Protocol):
    """Fuses absolute and relative poses; one node a frame, identified by its stamp.

    Attributes:
        rebuilds: how often the graph had to be rebuilt after a numerical failure.
    """

    rebuilds: int

    def add_relative(self, relative: RelativePose) -> None:
        """Add a frame by its motion from an earlier one, or another motion between two known frames; nothing while
        there is no frame at all.

        Raises:
            ValueError: the earlier frame is not known, or the later one is older than the newest and not known.
        """
        ...

    def add_absolute(self, absolute: PoseEstimate) -> bool:
        """Add an absolute pose to the frame of its own stamp; the first one starts the graph.

        Returns False when that frame is not, or no longer, in the graph.
        """
        ...

    def estimate(self) -> PoseEstimate | None:
        """Pose of the newest frame from everything added, None while nothing was."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


class PassThroughSmoother:
    """Answers with the newest absolute pose as it is, and with nothing for a frame that has none."""

    def __init__(self) -> None:
        self.rebuilds = 0
        self._newest_ns: int | None = None
        self._absolute: PoseEstimate | None = None

    def add_relative(self, relative: RelativePose) -> None:
        """A new frame, which has no absolute pose yet."""
        if self._newest_ns is None or relative.stamp_cur_ns > self._newest_ns:
            self._newest_ns, self._absolute = relative.stamp_cur_ns, None

    def add_absolute(self, absolute: PoseEstimate) -> bool:
        """Keep it when it belongs to the newest frame."""
        if self._newest_ns is not None and absolute.stamp_ns < self._newest_ns:
            return False
        if absolute.covariance is not None and not np.all(np.isfinite(absolute.covariance)):
            return False
        self._newest_ns, self._absolute = absolute.stamp_ns, absolute
        return True

    def estimate(self) -> PoseEstimate | None:
        """The newest frame's absolute pose."""
        return self._absolute

    def reset(self) -> None:
        """Forget everything."""
        self._newest_ns, self._absolute = None, None
