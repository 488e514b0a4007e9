"""A full search that runs beside the frames (:mod:`localizer_ros.localization.map_based.beside`)."""

from __future__ import annotations

import logging
from concurrent.futures import Executor

from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.map_based.beside import BesideFrames, LateResult
from localizer_ros.localization.map_based.search import GlobalLocalizer, SearchResult

logger = logging.getLogger(__name__)

UNDER_WAY = "search under way"
"""Why a frame has no pose while its search runs."""


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
        self._localizer = localizer
        self._beside: BesideFrames[SearchResult] = BesideFrames(latency_s, executor)

    def begin(self, frame: Frame, prior: PoseEstimate | None) -> None:
        """Search this frame, unless a search is under way."""
        self._beside.begin(frame, lambda: self._search(frame, prior))

    def collect(self, stamp_ns: int) -> LateResult[SearchResult] | None:
        """What is handed out with the frame at ``stamp_ns``; None while there is nothing."""
        return self._beside.collect(stamp_ns)

    def reset(self) -> None:
        """Never hand out what is under way."""
        self._beside.reset()

    def close(self) -> None:
        """Wait for the search under way and end the thread."""
        self._beside.close()

    def _search(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        try:
            return self._localizer.localize(frame, prior)
        except Exception as error:
            # Said twice: in the log at once and with its place, and to whoever collects it.
            logger.exception("search of frame %s failed", frame.label)
            return SearchResult(None, f"search failed ({type(error).__name__}: {error})")
