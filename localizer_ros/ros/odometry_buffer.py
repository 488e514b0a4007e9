"""Which odometry samples a frame gets to see. Knows nothing of ROS.

Offline a frame is given every sample up to its own stamp and none after it. Live, samples and images travel
on different topics and overtake each other; the buffer restores the order, so that both give the same answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from localizer_ros.ros.machine import Wait, wait_for

Sample = TypeVar("Sample")


class OdometryBuffer(Generic[Sample]):
    """Holds samples until a frame at or after their stamp asks for them.

    A frame waits for a sample that is due where the last one that was missed would have come in time; where it would
    not, waiting would make every frame late and help none.

    Args:
        max_held: the oldest samples are dropped beyond this.
        wait: for the sample that is on its way.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, max_held: int = 2000, wait: Wait = wait_for, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wait, self._clock = wait, clock
        # Stamp for which a sample is missing, when it was asked for, and how long there was to wait.
        self._missed: tuple[int, float, float] | None = None
        self._comes_in_time = True
        self._changed = threading.Condition()
        self._held: deque[tuple[int, Sample]] = deque(maxlen=max_held)
        self._newest_ns: int | None = None
        self._period_ns: int | None = None

    def add(self, stamp_ns: int, sample: Sample) -> None:
        """Hold a sample. One older than the last means that time or the odometry started over."""
        with self._changed:
            if self._newest_ns is not None:
                step_ns = stamp_ns - self._newest_ns
                if step_ns <= 0:
                    self._held.clear()
                self._period_ns = step_ns if step_ns > 0 else None
            self._newest_ns = stamp_ns
            self._held.append((stamp_ns, sample))
            if self._missed is not None and self._complete(self._missed[0]):
                _, asked_s, timeout_s = self._missed
                self._comes_in_time = self._clock() - asked_s <= timeout_s
                self._missed = None
            self._changed.notify_all()

    def release(self, stamp_ns: int, timeout_s: float) -> list[tuple[int, Sample]]:
        """The samples up to and including ``stamp_ns``, oldest first.

        Waits at most ``timeout_s``, and only where the rhythm of the samples says that one of them is still
        on its way.
        """
        with self._changed:
            asked_s = self._clock()
            if self._comes_in_time:
                self._wait(self._changed, lambda: self._complete(stamp_ns), timeout_s)
            if self._missed is None and not self._complete(stamp_ns):
                self._missed = (stamp_ns, asked_s, timeout_s)
                # It has not, if it was waited for.
                self._comes_in_time = False
            released = []
            while self._held and self._held[0][0] <= stamp_ns:
                released.append(self._held.popleft())
            return released

    def reset(self) -> None:
        """Forget everything."""
        with self._changed:
            self._held.clear()
            self._newest_ns = self._period_ns = self._missed = None
            self._comes_in_time = True

    def _complete(self, stamp_ns: int) -> bool:
        if self._newest_ns is None or self._period_ns is None:
            return True
        late_ns = stamp_ns - self._newest_ns
        # A stream that has been silent for long has ended; do not wait for it with every frame.
        return late_ns < 0.99 * self._period_ns or late_ns > 5 * self._period_ns
