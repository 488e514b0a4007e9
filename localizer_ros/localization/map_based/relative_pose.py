"""Relative poses to several retrieved keyframes: rotation averaged, position where their directions meet.

Essential matrices of the query to keyframes are estimated in RANSAC; see :mod:`localizer_ros.geometry.relative_poses`
for the pose that follows from them. No points in space are used.
"""

from __future__ import annotations

import numpy as np
import poselib

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.features.matchers import open_matcher
from localizer_ros.geometry.relative_poses import KnownView, meeting_pose, refine_on_epipolar_lines
from localizer_ros.localization.map_based.search import SearchResult
from localizer_ros.scene.map_scene import MapScene, View

# Fewer matches are no essential matrix, and fewer on epipolar lines no answer.
_LEAST_INLIERS = 20
# Largest distance of an inlier from its epipolar line, px.
_EPIPOLAR_PX = 2.0
# Directions that hardly meet leave the position open: largest sigma of an answer, as a share of the median depth.
_MAX_SIGMA_OF_DEPTH = 0.1
# Confidence is count / (count + this + half of the matches that say otherwise).
_USUAL_COUNT, _AGAINST_WEIGHT = 50.0, 0.5


class RelativeLocalizer:
    """Implements ``GlobalLocalizer`` by relative poses.

    Args:
        scene: keyframes with poses and keypoints; of its points nothing is used.
        config: how many images.

    Raises:
        ConfigError: a matcher that the scene does not hold.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        self._scene, self._config = scene, config
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See :class:`GlobalLocalizer`; ``prior`` is not used."""
        timer = StageTimer()
        answer, reason = self._search(frame, timer)
        return SearchResult(answer, reason, None, timer.timings_ms())

    def _search(self, frame: Frame, timer: StageTimer) -> tuple[PoseEstimate | None, str]:
        """The answer, or None and why there is none."""
        c, scene = self._config, self._scene
        view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine=True)
        timer.lap("extract")
        if len(view.features) < _LEAST_INLIERS:
            return None, f"too few keypoints ({len(view.features)})"
        query = scene.global_descriptor(frame, view)
        images, _ = scene.distinct_images(query, c.relative_neighbours, keyframes_only=True)
        timer.lap("retrieve")
        views = [
            known
            for keyframe in scene.database.keyframe[images]
            if (known := self._known_view(view, int(keyframe))) is not None
        ]
        timer.lap("match")
        if len(views) < 2:
            return None, f"relative pose to {len(views)} of {len(images)} retrieved images, expected 2"
        return self._solve(frame, views)

    def _known_view(self, view: View, keyframe: int) -> KnownView | None:
        """A keyframe with the query's relative pose; None when too few matches agree on one."""
        c, scene = self._config, self._scene
        pairs = self._matcher.match(view.side, scene.keyframe_side(keyframe))
        if len(pairs) < _LEAST_INLIERS:
            return None
        rays_db = scene.keyframe_rays(keyframe)[pairs[:, 1]]
        rays_query = view.rays[pairs[:, 0]]
        camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [scene.focal_px, 0.0, 0.0]}
        pose, report = poselib.estimate_relative_pose(
            rays_db * scene.focal_px,
            rays_query * scene.focal_px,
            camera,
            camera,
            {"max_epipolar_error": _EPIPOLAR_PX, "max_iterations": c.max_iterations, "seed": c.seed},
            {},
        )
        inliers = np.asarray(report["inliers"], dtype=bool)
        if inliers.sum() < _LEAST_INLIERS:
            return None
        T = scene.point_map.T_map_refined[keyframe]
        T_db_query = SE3(np.asarray(pose.R), np.asarray(pose.t)).inverse()
        return KnownView(SE3(T[:3, :3], T[:3, 3]), T_db_query, rays_db[inliers], rays_query[inliers])

    def _solve(self, frame: Frame, views: list[KnownView]) -> tuple[PoseEstimate | None, str]:
        scene, depth_m = self._scene, self._scene.point_map.median_depth
        met = meeting_pose(views, depth_m)
        if met is None:
            return None, "relative poses to the retrieved images do not agree"
        start, agreeing = met
        refined = refine_on_epipolar_lines(
            start, [views[i] for i in agreeing], scene.focal_px, depth_m, _LEAST_INLIERS
        )
        if refined is None:
            return None, "epipolar errors leave the pose undetermined"
        T_map_cam, systematic = scene.given_pose(refined.T_map_query)
        against = sum(len(view) for n, view in enumerate(views) if n not in agreeing)
        confidence = refined.inliers / (refined.inliers + _USUAL_COUNT + _AGAINST_WEIGHT * against)
        sigma_m = float(np.sqrt(np.trace(refined.covariance[3:, 3:])))
        if confidence < 0.5 or sigma_m > _MAX_SIGMA_OF_DEPTH * depth_m:
            return None, (
                f"confidence {confidence:.2f}: {len(agreeing)} of {len(views)} matched images agree, position known "
                f"to {sigma_m:.2f} m"
            )
        covariance = refined.covariance + systematic
        answer = PoseEstimate(
            frame.stamp_ns, T_map_cam, covariance, "relative", inliers=refined.inliers, confidence=confidence
        )
        return answer, ""
