"""Work that takes longer than a frame: it runs beside the frames, and its result keeps the frame that it is about.

There is one piece of work at a time and no queue. A frame that wants some while another is under way gets none; the
next one begins with the newest frame there is when the last result has been handed out.

The schedule is declared, not measured: the result of work begun with a frame at ``t`` is handed out with the first
frame at or after ``t + latency``. Without a thread the work is done when it begins and its result waits for that frame,
which is what ``eval`` and ``replay`` do; with one thread it is done meanwhile, and is handed out later still if it is
not done by then. A declared latency that the thread keeps makes both the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from localizer_ros.core.types import Frame

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class LateResult(Generic[Result]):
    """The result of work that was done beside the frames.

    Attributes:
        frame: what it is about.
        result: what came of it.
        took_ms: wall time from the frame to the result.
    """

    frame: Frame
    result: Result
    took_ms: float


@dataclass(slots=True, eq=False)
class _Job(Generic[Result]):
    due_ns: int
    future: Future[LateResult[Result]]
    wanted: bool = True


def own_thread(name: str) -> Executor:
    """One thread for one piece of work at a time."""
    return ThreadPoolExecutor(1, thread_name_prefix=name)


class BesideFrames(Generic[Result]):
    """Does one piece of work at a time beside the frames. Used and closed in one thread, whatever the executor.

    Args:
        latency_s: declared time from a frame to its result, above 0.
        executor: where work is done, closed with this; None = in the calling thread, when it begins.
    """

    def __init__(self, latency_s: float, executor: Executor | None = None) -> None:
        self._executor, self._latency_ns = executor, round(latency_s * 1e9)
        self._job: _Job[Result] | None = None

    def begin(self, frame: Frame, work: Callable[[], Result]) -> bool:
        """Begin the work of a frame, unless other work is under way; whether it has begun."""
        if self._job is not None:
            return False
        future: Future[LateResult[Result]] = Future()
        if self._executor is None:
            future.set_result(_done(frame, work, time.perf_counter()))
        else:
            future = self._executor.submit(_done, frame, work, time.perf_counter())
        self._job = _Job(frame.stamp_ns + self._latency_ns, future)
        return True

    def collect(self, stamp_ns: int) -> LateResult[Result] | None:
        """What is handed out with the frame at ``stamp_ns``; None while there is nothing.

        Raises:
            Exception: what the work raised.
        """
        job = self._job
        if job is None or not job.future.done() or (job.wanted and stamp_ns < job.due_ns):
            return None
        self._job = None
        return job.future.result() if job.wanted else None

    @property
    def is_under_way(self) -> bool:
        """Whether work has begun whose result is wanted and has not been handed out."""
        return self._job is not None and self._job.wanted

    def wait(self) -> LateResult[Result] | None:
        """What is under way, before it is due; None where nothing is that anybody wants.

        Raises:
            Exception: what the work raised.
        """
        job = self._job
        if job is None or not job.wanted:
            return None
        self._job = None
        return job.future.result()

    def reset(self) -> None:
        """Never hand out what is under way. A thread finishes it nevertheless before it begins another."""
        if self._job is not None:
            self._job.wanted = False

    def close(self) -> None:
        """Wait for the work under way and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)


def _done(frame: Frame, work: Callable[[], Result], began_s: float) -> LateResult[Result]:
    return LateResult(frame, work(), (time.perf_counter() - began_s) * 1e3)
