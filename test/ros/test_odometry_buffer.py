"""Which odometry samples a frame gets to see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from localizer_ros.ros.odometry_buffer import OdometryBuffer

MS = 1_000_000


def test_buffer_releases_up_to_the_stamp_and_each_sample_once() -> None:
    buffer: OdometryBuffer[int] = OdometryBuffer()
    for stamp in range(0, 100, 10):
        buffer.add(stamp * MS, stamp)
    assert [s for _, s in buffer.release(35 * MS, 0.0)] == [0, 10, 20, 30]
    assert [s for _, s in buffer.release(50 * MS, 0.0)] == [40, 50]
    assert buffer.release(50 * MS, 0.0) == []


def test_buffer_waits_for_a_sample_that_is_due_but_not_for_one_that_is_not() -> None:
    buffer: OdometryBuffer[int] = OdometryBuffer()
    buffer.add(0, 0)
    buffer.add(20 * MS, 20)
    began = time.monotonic()
    assert [s for _, s in buffer.release(39 * MS, 5.0)] == [0, 20]
    assert time.monotonic() - began < 1.0, "waited for a sample that lies after the frame"
    timer = threading.Timer(0.02, buffer.add, (40 * MS, 40))
    timer.start()
    assert [s for _, s in buffer.release(41 * MS, 5.0)] == [40]
    timer.join()


def test_buffer_does_not_wait_for_a_stream_that_ended() -> None:
    buffer: OdometryBuffer[int] = OdometryBuffer()
    buffer.add(0, 0)
    buffer.add(20 * MS, 20)
    began = time.monotonic()
    buffer.release(1000 * MS, 5.0)
    assert time.monotonic() - began < 1.0


def test_buffer_starts_over_when_time_goes_back() -> None:
    buffer: OdometryBuffer[str] = OdometryBuffer()
    buffer.add(1000 * MS, "first round")
    buffer.add(1020 * MS, "first round")
    buffer.add(10 * MS, "second round")
    assert buffer.release(2000 * MS, 0.0) == [(10 * MS, "second round")]


class Late:
    """Frames at 30 Hz and odometry at 50 Hz that comes so much later than its stamp, in time of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.buffer: OdometryBuffer[int] = OdometryBuffer(wait=self._wait, clock=lambda: self.now_s)
        self.late_s = 0.0
        self.sent = self.frames = 0

    def _arrive(self) -> None:
        while 0.02 * self.sent + self.late_s <= self.now_s:
            self.buffer.add(self.sent * 20 * MS, self.sent)
            self.sent += 1

    def _wait(self, condition: threading.Condition, done: Callable[[], bool], timeout_s: float) -> None:
        until_s = self.now_s + timeout_s
        while not done() and self.now_s < until_s:
            self.now_s = round(self.now_s + 0.001, 6)
            self._arrive()

    def waited_s(self, frames: int, late_s: float) -> list[float]:
        """How long each of so many frames waits."""
        self.late_s, waited = late_s, []
        for _ in range(frames):
            self.frames += 1
            while self.now_s < 0.033 * self.frames:
                self.now_s = round(self.now_s + 0.001, 6)
                self._arrive()
            asked_s = self.now_s
            self.buffer.release(self.frames * 33 * MS, 0.02)
            waited.append(self.now_s - asked_s)
        return waited


def test_a_frame_waits_for_odometry_that_comes_in_time_and_no_frame_for_odometry_that_never_does() -> None:
    late = Late()
    in_time = late.waited_s(60, 0.008)
    assert max(in_time) < 0.01 and any(in_time)
    too_late = late.waited_s(60, 0.05)
    assert sum(wait > 0.0 for wait in too_late) <= 2
    again = late.waited_s(60, 0.008)
    assert max(again) < 0.01 and any(again[5:])
