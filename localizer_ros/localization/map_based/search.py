"""What a search makes of a frame: a pose, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.seen import NO_POINTS, Pixels, SeenPoints, without_pose
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Camera, Frame, PoseEstimate
from localizer_ros.localization.map_based.verification import VerifiedPose
from localizer_ros.scene.map_scene import MapScene, View

# Sigma of a view beyond which a prior is vague: as far as tracking would look, by default.
_VAGUE_RAD = np.radians(6.0)


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The result of a full search.

    Attributes:
        answer: pose of the frame, None when there is none.
        reason: why there is none; empty otherwise.
        verified: the points behind the answer, where there is one and the method has points.
        timings_ms: wall time of the search's stages, in order.
        seen: keypoints and matches, with or without a pose; None for methods without points.
        unsure: the best pose, where there is one that is not sure enough to be the answer.
    """

    answer: PoseEstimate | None
    reason: str = ""
    verified: VerifiedPose | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    seen: SeenPoints | None = None
    unsure: VerifiedPose | None = None


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
        matched_px: (K, 2) keypoints that were matched, where there is none.
    """

    verified: VerifiedPose | None
    reason: str = ""
    matched_px: Pixels = field(default_factory=lambda: NO_POINTS)


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
    """The result of a search that looks for finer keypoints only where the coarse ones give no believable pose, and
    where the pose is not well known otherwise: a robot that is not lost is better served by the next frame.

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
    reason, seen = "", without_pose(NO_POINTS, NO_POINTS)
    least = scene.confidence.least_accepted(config.max_wrong)
    fallback = config.fine_features == "fallback" and _is_vague(scene, prior)
    for fine in (False, True) if fallback else (config.fine_features == "always",):
        view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine)
        timer.lap("extract")
        found = searcher.search(frame, view, prior, timer)
        reason = found.reason
        if found.verified is not None and (best is None or found.verified.confidence > best.confidence):
            best = found.verified
        keypoints_px = view.features.xy_px
        seen = (
            without_pose(keypoints_px, found.matched_px)
            if best is None
            else seen_points(best, frame.camera, keypoints_px)
        )
        if best is not None and best.confidence >= least:
            answer = best.answer(scene, frame.stamp_ns, source)
            return SearchResult(answer, "", best, timer.timings_ms(), seen)
    if best is not None:
        reason = _doubt(best)
    return SearchResult(None, reason, None, timer.timings_ms(), seen, best)


def _is_vague(scene: MapScene, prior: PoseEstimate | None) -> bool:
    """Whether a prior says too little to go on with until a later frame is found."""
    if prior is None or prior.covariance is None:
        return True
    return bool(scene.view_sigma_rad(prior.covariance) > _VAGUE_RAD)


def seen_points(verified: VerifiedPose, camera: Camera, keypoints_px: Pixels = NO_POINTS) -> SeenPoints:
    """The points of a pose and where it puts them; so near their keypoints that the lens does not matter."""
    T = verified.solved.T_map_refined
    x, y, z = ((verified.X_map - T.t) @ T.R).T
    off = np.stack([x, y], axis=1) / np.maximum(z, 1e-6)[:, None] - verified.rays
    matched_px = verified.xy_px.astype(np.float64)
    return SeenPoints(keypoints_px, matched_px, verified.solved.inliers, matched_px + camera.K[0, 0] * off)


def elsewhere(scene: MapScene, least_confidence: float, results: Sequence[SearchResult]) -> bool:
    """Whether an image is explained by a place, or by two that look alike, and by none that its prior allows."""
    unsure = [r.unsure for r in results if r.unsure is not None and r.unsure.evidence.agrees is False]
    alone = [replace(verified.evidence, rival_explains=0.0, agrees=None) for verified in unsure]
    return any(scene.confidence.probability(evidence) >= least_confidence for evidence in alone)


def _doubt(best: VerifiedPose) -> str:
    """Why a pose is not sure enough."""
    evidence = best.evidence
    of = f"confidence {best.confidence:.3f} of {evidence.inliers} inliers"
    if evidence.rival_explains > best.confidence:
        return f"{of}; a second place explains the image, with {evidence.rival} inliers"
    return f"{of}, {evidence.visible} points expected in view"
