"""The front end of a method without tracking, and what it shares with the one that tracks."""

from __future__ import annotations

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import LATE_SEARCH, Frame, PoseEstimate, RelativePose
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.map_based.beside import LateResult
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.late_search import UNDER_WAY, LateSearch
from localizer_ros.localization.map_based.search import GlobalLocalizer, SearchResult
from localizer_ros.scene.map_scene import MapScene


class SearchFrontEnd:
    """Implements ``FrontEnd`` by a global localizer alone: every frame for itself, no motion.

    Args:
        localizer: finds the frames.
        late: runs it beside the frames; None = in place.
    """

    def __init__(self, localizer: GlobalLocalizer, late: LateSearch | None = None) -> None:
        self._localizer, self._late = localizer, late

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        if self._late is None:
            result = self._localizer.localize(frame, prior)
            return Observation(result.answer, (), None, result.reason, result.timings_ms, seen=result.seen)
        timer = StageTimer()
        late = self._late.collect(frame.stamp_ns)
        with timer.stage("search"):
            self._late.begin(frame, prior)
        return with_late_result(late, None, None, UNDER_WAY, timer)

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        if self._late is not None:
            self._late.reset()

    def lost(self) -> None:
        """See :class:`FrontEnd`: a search under way was told where to look."""
        self.reset()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        if self._late is not None:
            self._late.close()


def with_late_result(
    late: LateResult[SearchResult] | None,
    answer: PoseEstimate | None,
    relative: RelativePose | None,
    reason: str,
    timer: StageTimer,
) -> Observation:
    """The observation of a frame with which the result of an earlier one may have come.

    Args:
        late: that result.
        answer: pose of the frame.
        relative: motion since the frame before.
        reason: why there is no pose.
        timer: of the frame's stages.
    """
    timings_ms = timer.timings_ms()
    if late is None:
        return Observation(answer, (), relative, reason, timings_ms)
    answers = () if late.result.answer is None else (late.result.answer,)
    reasons = [why for why in (late.result.reason, reason) if why]
    return Observation(answer, answers, relative, "; ".join(reasons), timings_ms, {LATE_SEARCH: late.took_ms})


def open_search(scene: MapScene, method: str, config: SearchConfig) -> GlobalLocalizer:
    """The full search of a method in a map."""
    if method == "retrieval":
        from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer

        return RetrievalLocalizer(scene, config)
    if method == "relative":
        from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer

        return RelativeLocalizer(scene, config)
    if method == "local":
        from localizer_ros.localization.map_based.local_map import LocalMapLocalizer

        return LocalMapLocalizer(scene, config)
    return HierarchicalLocalizer(scene, config, direct=method == "direct")
