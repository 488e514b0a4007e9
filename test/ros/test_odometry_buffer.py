"""Which odometry samples a frame gets to see."""

from __future__ import annotations

import threading
import time

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
