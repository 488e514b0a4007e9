"""What a search makes of a frame: a pose, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.map_based.verification import VerifiedPose
from localizer_ros.scene.map_scene import MapScene, View

# Passes of extraction for each setting: with the finest octave of keypoints, or without.
_PASSES = {"never": (False,), "fallback": (False, True), "always": (True,)}


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The result of a full search.

    Attributes:
        answer: pose of the frame, None when there is none.
        reason: why there is none; empty otherwise.
        verified: the points behind the answer, where there is one and the method has points.
        timings_ms: wall time of the search's stages, in order.
    """

    answer: PoseEstimate | None
    reason: str = ""
    verified: VerifiedPose | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class GlobalLocalizer(Protocol):
    """Finds a frame in a map from nothing, or near a prior."""

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """The pose of one frame, or the reason why there is none.

        Args:
            frame: the image.
            prior: what is known of its pose, None when nothing is.

        Raises:
            BackendError: a network fails.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ViewResult:
    """The result of a search with one extraction of keypoints.

    Attributes:
        verified: the best verified pose, with any confidence; None when there is none.
        reason: why there is none; empty otherwise.
    """

    verified: VerifiedPose | None
    reason: str = ""


class ViewSearch(Protocol):
    """Finds the pose of a view."""

    def search(self, frame: Frame, view: View, prior: PoseEstimate | None, timer: StageTimer) -> ViewResult:
        """The best verified pose of a view.

        Args:
            frame: the image.
            view: its features.
            prior: what is known of its pose, None when nothing is.
            timer: of the search's stages, as laps.
        """
        ...


def search_in_passes(
    searcher: ViewSearch,
    scene: MapScene,
    config: SearchConfig,
    source: str,
    frame: Frame,
    prior: PoseEstimate | None,
) -> SearchResult:
    """The result of a search that looks for finer keypoints only where the coarse ones give no believable pose.

    Args:
        searcher: finds the pose of a view.
        scene: the map.
        config: which passes, and the least confidence of an answer.
        source: name of the method.
        frame: the image.
        prior: what is known of its pose, None when nothing is.
    """
    timer = StageTimer()
    best: VerifiedPose | None = None
    reason = ""
    least = scene.confidence.least_accepted(config.max_wrong)
    for fine in _PASSES[config.fine_features]:
        view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine)
        timer.lap("extract")
        found = searcher.search(frame, view, prior, timer)
        reason = found.reason
        if found.verified is not None and (best is None or found.verified.confidence > best.confidence):
            best = found.verified
        if best is not None and best.confidence >= least:
            answer = scene.answer(frame.stamp_ns, best.solved, source, best.confidence)
            return SearchResult(answer, "", best, timer.timings_ms())
    if best is not None:
        reason = (
            f"confidence {best.confidence:.2f} of {best.solved.count} inliers, "
            f"{best.evidence.visible} points expected in view"
        )
    return SearchResult(None, reason, None, timer.timings_ms())
