"""What the stamps of images tell beside their time: whose clock they are of, and which images never came."""

from __future__ import annotations

from collections import deque

import numpy as np

from localizer_ros.core.types import FrameRejected

# No clock of a camera is ahead of the robot's by more: what is stamped later would lie in the future of every listener.
_AHEAD_S = 0.5
# Older images are of another clock, or have waited somewhere: no robot is steered by them.
_OLD_S = 2.0
# Intervals that tell the rhythm, and how evenly it must go to tell that one is missing.
_FEWEST_INTERVALS, _EVEN_SHARE, _EVEN_WITHIN = 10, 0.8, 0.2
# A longer interval is a pause, not a loss.
_PAUSE_S = 2.0


def stamp_problem(stamp_ns: int, now_ns: int) -> str:
    """What is wrong with the stamp of an image that has just come, by the robot's clock; empty when nothing is.

    Raises:
        FrameRejected: it lies in the future.
    """
    if stamp_ns <= 0 or now_ns <= 0:
        # No stamp, which is refused elsewhere; or a simulated clock that has not begun.
        return ""
    age_s = (now_ns - stamp_ns) * 1e-9
    clocks = "synchronise the clocks, or set use_sim_time where time is simulated or recorded"
    if age_s < -_AHEAD_S:
        raise FrameRejected(
            "stamp_future", f"the image is stamped {-age_s:.1f} s ahead of this machine's clock: {clocks}"
        )
    return (
        f"images are stamped {age_s:.1f} s in the past of this machine's clock: {clocks}"
        if age_s > _OLD_S
        else ""
    )


class MissingFrames:
    """Counts images that never came, by the gaps that they leave in an even rhythm of stamps.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=50)

    def add(self, stamp_ns: int) -> None:
        """An image came."""
        last_ns, self._last_ns = self._last_ns, stamp_ns
        interval_ns = 0 if last_ns is None else stamp_ns - last_ns
        if not 0 < interval_ns < _PAUSE_S * 1e9:
            return
        if (period_ns := self._period_ns()) is not None:
            self.count += max(0, round(interval_ns / period_ns) - 1)
        self._intervals_ns.append(interval_ns)

    def _period_ns(self) -> float | None:
        """The camera's period; None where it has no even one."""
        if len(self._intervals_ns) < _FEWEST_INTERVALS:
            return None
        intervals = np.array(self._intervals_ns)
        period_ns = float(np.median(intervals))
        # What is missing makes an interval a multiple, and is even as well.
        off = np.abs(intervals / period_ns - np.maximum(1.0, np.rint(intervals / period_ns)))
        return period_ns if np.mean(off < _EVEN_WITHIN) >= _EVEN_SHARE else None
