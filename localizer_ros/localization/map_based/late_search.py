"""A search that takes longer than a frame: it runs beside the frames, and its answer keeps the stamp of its own frame.

There is one search at a time and no queue. A frame that wants a search while one is under way gets none; the next one
begins with the newest frame there is when the last answer has been handed out.

Its schedule is declared, not measured: the answer to a frame at ``t`` is handed out with the first frame at or after
``t + latency``. Without a thread the search is computed when it begins and waits for that frame, which is what ``eval``
and ``replay`` do; with one thread it is computed meanwhile, and is handed out later still if it is not done by then. A
declared latency that the thread keeps makes both the same.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.map_based.search import GlobalLocalizer, SearchResult

logger = logging.getLogger(__name__)

UNDER_WAY = "search under way"
"""Why a frame has no pose while its search runs."""


@dataclass(frozen=True, slots=True, eq=False)
class LateResult:
    """The result of a search that ran beside the frames.

    Attributes:
        frame: where it looked.
        result: what it found there.
        took_ms: wall time from the frame to the result.
    """

    frame: Frame
    result: SearchResult
    took_ms: float


@dataclass(slots=True, eq=False)
class _Job:
    due_ns: int
    future: Future[LateResult]
    wanted: bool = True


def own_thread() -> Executor:
    """One thread for one search at a time."""
    return ThreadPoolExecutor(1, thread_name_prefix="search")


class LateSearch:
    """Full search whose answers come late. Used and closed in one thread, whatever the executor.

    Args:
        localizer: searches; while a search is under way nobody else may call it.
        latency_s: declared time from a frame to its answer, above 0.
        executor: where it runs, closed with this; None = in the calling thread, when it begins.
    """

    def __init__(
        self, localizer: GlobalLocalizer, latency_s: float, executor: Executor | None = None
    ) -> None:
        self._localizer, self._executor = localizer, executor
        self._latency_ns = round(latency_s * 1e9)
        self._job: _Job | None = None

    def begin(self, frame: Frame, prior: PoseEstimate | None) -> None:
        """Search this frame, unless a search is under way."""
        if self._job is not None:
            return
        future: Future[LateResult] = Future()
        if self._executor is None:
            future.set_result(self._run(frame, prior, time.perf_counter()))
        else:
            future = self._executor.submit(self._run, frame, prior, time.perf_counter())
        self._job = _Job(frame.stamp_ns + self._latency_ns, future)

    def collect(self, stamp_ns: int) -> LateResult | None:
        """What is handed out with the frame at ``stamp_ns``; None while there is nothing."""
        job = self._job
        if job is None or not job.future.done() or (job.wanted and stamp_ns < job.due_ns):
            return None
        self._job = None
        return job.future.result() if job.wanted else None

    def reset(self) -> None:
        """Never hand out what is under way. A thread finishes it nevertheless before it begins another."""
        if self._job is not None:
            self._job.wanted = False

    def close(self) -> None:
        """Wait for the search under way and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)

    def _run(self, frame: Frame, prior: PoseEstimate | None, began_s: float) -> LateResult:
        try:
            result = self._localizer.localize(frame, prior)
        except Exception as error:
            # Said twice: in the log at once and with its place, and to whoever collects it.
            logger.exception("search of frame %s failed", frame.label)
            result = SearchResult(None, f"search failed ({type(error).__name__}: {error})")
        return LateResult(frame, result, (time.perf_counter() - began_s) * 1e3)
