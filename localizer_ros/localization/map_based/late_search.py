"""A search that takes longer than a frame: it runs beside the frames, and its answer keeps the stamp of its own frame.

There is one search at a time and no queue. A frame that wants a search while one is under way gets none; the next one
begins with the newest frame there is when the last answer has been handed out.

Its schedule is declared, not measured: the answer to a frame at ``t`` is handed out with the first frame at or after
``t + latency``. With :class:`InPlace` the search is computed when it begins and waits for that frame, which is what
``eval`` and ``replay`` do; with one thread it is computed meanwhile, and is handed out later still if it is not done by
then. A declared latency that the thread keeps makes both the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.map_based.hierarchical import Found

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What a full search made of a frame.

    Attributes:
        frame: where it looked.
        answer: pose of that frame, None when there is none.
        reason: why there is none; empty otherwise.
        found: the verified points behind the answer, where the method has some.
        timings_ms: of the search's stages.
        took_ms: wall time from the frame to the answer, where it ran beside the frames.
    """

    frame: Frame
    answer: PoseEstimate | None
    reason: str = ""
    found: Found | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    took_ms: float | None = None


Search = Callable[[Frame, PoseEstimate | None], Searched]


class InPlace(Executor):
    """Runs what is submitted at once, in the thread that submits it."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """See :meth:`Executor.submit`."""
        future: Future[R] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def own_thread() -> Executor:
    """One thread for one search at a time."""
    return ThreadPoolExecutor(1, thread_name_prefix="search")


@dataclass(slots=True, eq=False)
class _Job:
    due_ns: int
    future: Future[Searched]
    wanted: bool = True


class LateSearch:
    """Full search whose answers come late. Used and closed in one thread, whatever the executor.

    Args:
        search: the search; while one is under way nobody else may call it.
        latency_s: declared time from a frame to its answer, above 0.
        executor: where it runs: :class:`InPlace` or :func:`own_thread`. Closed with this.
    """

    def __init__(self, search: Search, latency_s: float, executor: Executor) -> None:
        self._search, self._executor = search, executor
        self._latency_ns = round(latency_s * 1e9)
        self._job: _Job | None = None

    def begin(self, frame: Frame, prior: PoseEstimate | None) -> None:
        """Search this frame, unless a search is under way."""
        if self._job is None:
            future = self._executor.submit(self._run, frame, prior, time.perf_counter())
            self._job = _Job(frame.stamp_ns + self._latency_ns, future)

    def collect(self, stamp_ns: int) -> Searched | None:
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
        self._executor.shutdown(wait=True)

    def _run(self, frame: Frame, prior: PoseEstimate | None, began_s: float) -> Searched:
        try:
            searched = self._search(frame, prior)
            return replace(searched, took_ms=(time.perf_counter() - began_s) * 1e3)
        except Exception as error:
            # Said twice: in the log at once and with its place, and to whoever collects it.
            logger.exception("search of frame %s failed", frame.label)
            return Searched(frame, None, f"search failed ({type(error).__name__}: {error})")
