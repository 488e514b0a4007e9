"""Guided tracking: from a predicted pose to the pose, at camera rate.

The points that the nearest mapping images saw are projected with the predicted pose and looked for in small
windows; the pose follows by robust least squares. Finding and describing keypoints is most of the work, so that it is
done in some frames only. In those between, the matched points are where optical flow says; their places in the map stay
what they are, and a few frames later new keypoints meet the map's own descriptors: nothing drifts.
"""

from __future__ import annotations

import time

import numpy as np

from localizer_ros.core.config.map_based import TrackingConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.geometry.pose_solver import coverage_of, refine_pose
from localizer_ros.localization.map_based.guided_matching import guided_matches
from localizer_ros.localization.map_based.hierarchical import Found, HierarchicalLocalizer
from localizer_ros.localization.map_based.optical_flow import Followed
from localizer_ros.scene.map_scene import MapScene, View, half_view_of

# Points have errors of some pixels, and a narrow window around a prediction takes those that have the prediction's own:
# answers then stay as wrong as they were. A wide one takes in what repeats (docs/explanation/maps.md).
_LEAST_WINDOW_PX = 12.0
_FIRST_ERROR_PX = 8.0
# A wider window holds many keypoints: the points of so many images are enough to correct a prediction roughly.
_ROUGH_IMAGES = 3
# A map point's error and a keypoint's together, in a point that is carried on.
_CARRIED_ERROR_PX = 4.0


class Tracker:
    """Finds the camera near a predicted pose.

    Args:
        scene: map.
        config: windows and thresholds.
        judge: verifies and rates poses.

    Attributes:
        timings_ms: of the last frame.
    """

    def __init__(self, scene: MapScene, config: TrackingConfig, judge: HierarchicalLocalizer) -> None:
        self._scene, self._config, self._judge = scene, config, judge
        self.timings_ms: dict[str, float] = {}

    def track(
        self, frame: Frame, T_map_refined: SE3, covariance: Array, prior: PoseEstimate | None
    ) -> Found | None:
        """The verified pose near a prediction, with any confidence; None when too few points were found.

        Args:
            frame: the image.
            T_map_refined: predicted pose.
            covariance: (6, 6) of the prediction in its tangent.
            prior: for the confidence.
        """
        c, scene = self._config, self._scene
        started = time.perf_counter()
        view = scene.view(frame, c.max_keypoints, fine=False)
        extracted = time.perf_counter()
        found = self._match(view, T_map_refined, self._window_px(covariance), prior)
        self.timings_ms = {
            "extract": (extracted - started) * 1e3,
            "match": (time.perf_counter() - extracted) * 1e3,
        }
        return found

    def carry(
        self, frame: Frame, last: Found, followed: Followed, T_map_refined: SE3, prior: PoseEstimate | None
    ) -> Found | None:
        """The pose from the points of the last frame where optical flow has found them; None when too few are left.

        Args:
            frame: the image.
            last: what was found in the frame that the points were followed from.
            followed: those points in this frame.
            T_map_refined: predicted pose.
            prior: for the confidence.
        """
        started = time.perf_counter()
        solved = refine_pose(
            T_map_refined,
            followed.rays,
            self._scene.point_map.points[followed.map_point],
            self._scene.focal_px,
            _CARRIED_ERROR_PX,
            self._config.min_inliers,
        )
        found: Found | None = None
        if solved is not None:
            spread = coverage_of(followed.rays[solved.inliers], half_view_of(frame.camera))
            agrees = self._judge.agrees(solved, prior)
            found = Found(
                solved,
                followed.map_point,
                followed.xy_px,
                followed.rays,
                last.visible,
                spread,
                self._judge.confidence(frame, solved, last.visible, spread, agrees),
                agrees,
                last.carried + 1,
                last.kept * followed.share * solved.count / len(followed.rays),
            )
        self.timings_ms = {"carry": (time.perf_counter() - started) * 1e3}
        return found

    def _match(self, view: View, T: SE3, window_px: float, prior: PoseEstimate | None) -> Found | None:
        """Descriptors near a prediction, from a coarse window to the fine one of verification."""
        c, scene = self._config, self._scene
        images = scene.nearest_keyframes(T, c.images)
        rough = window_px > 2.0 * _LEAST_WINDOW_PX
        for radius in (window_px, _LEAST_WINDOW_PX) if rough else (window_px,):
            matches = guided_matches(
                scene.point_map,
                T,
                images if radius <= _LEAST_WINDOW_PX else images[:_ROUGH_IMAGES],
                view.rays,
                view.tree,
                view.features.descriptors,
                view.half_view,
                scene.focal_px,
                radius,
                0.75,
            )
            if len(matches.point) < c.min_inliers:
                return None
            if radius > _LEAST_WINDOW_PX:
                T = self._turned(T, matches.offset_px)
            solved = refine_pose(
                T,
                view.rays[matches.keypoint],
                scene.point_map.points[matches.point],
                scene.focal_px,
                _FIRST_ERROR_PX,
                c.min_inliers,
                iterations=6,
            )
            if solved is None:
                return None
            T = solved.T_map_refined
        found = self._judge.verify(view, T, prior, images, rounds=1)
        return found if found is not None and found.solved.count >= c.min_inliers else None

    def sigma_rad(self, covariance: Array) -> float:
        """How uncertain a view is: the turn, and the move as seen from the median depth."""
        turn = np.trace(covariance[:3, :3])
        move = np.trace(covariance[3:, 3:]) / self._scene.point_map.median_depth**2
        return float(np.sqrt((turn + move) / 2.0))

    def _window_px(self, covariance: Array) -> float:
        sigma = self.sigma_rad(covariance) * self._scene.focal_px
        return float(np.clip(3.0 * sigma, _LEAST_WINDOW_PX, self._config.window_px))

    def _turned(self, T: SE3, offset_px: Array) -> SE3:
        """The prediction turned such that the median offset vanishes: most of an error of prediction is a turn."""
        dx, dy = np.median(offset_px, axis=0) / self._scene.focal_px
        # By the interaction matrix at the image centre: x moves by -w_y, y by w_x.
        return T @ SE3.exp([dy, -dx, 0.0, 0.0, 0.0, 0.0])
