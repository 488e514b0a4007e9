"""Guided tracking: from a predicted pose to the pose, at camera rate.

The points that the nearest mapping images saw are projected with the predicted pose and looked for in small
windows; the pose follows by robust least squares. Keypoints are new in every frame and compared with the map's
own descriptors, so nothing drifts and no state is carried from frame to frame but the pose.
"""

from __future__ import annotations

import time

import numpy as np

from localizer_ros.core.config import TrackingConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.localization.global_hierarchical import Found, HierarchicalLocalizer
from localizer_ros.localization.guided_matching import guided_matches
from localizer_ros.localization.pose_solver import SolvedPose, refine_pose
from localizer_ros.localization.structure_scene import StructureScene

# Windows are never smaller than this: keypoints and map points have errors too.
_LEAST_WINDOW_PX = 8.0
# A prediction further off than this is corrected roughly before the last search.
_ROUGH_WINDOW_PX = 12.0


class Tracker:
    """Finds the camera near a predicted pose.

    Args:
        scene: map.
        config: windows and thresholds.
        judge: verifies and rates poses.

    Attributes:
        timings_ms: of the last frame.
    """

    def __init__(self, scene: StructureScene, config: TrackingConfig, judge: HierarchicalLocalizer) -> None:
        self._scene, self._config, self._judge = scene, config, judge
        self.timings_ms: dict[str, float] = {}

    def track(
        self, frame: Frame, T_map_opt: SE3, covariance: Array, prior: PoseEstimate | None
    ) -> Found | None:
        """The verified pose near a prediction, with any confidence; None when too few points were found.

        Args:
            frame: the image.
            T_map_opt: predicted pose.
            covariance: (6, 6) of the prediction in its tangent.
            prior: for the confidence.
        """
        c, scene = self._config, self._scene
        started = time.perf_counter()
        view = scene.view(frame, c.max_keypoints, fine=False)
        extracted = time.perf_counter()
        window = self._window_px(covariance)
        T, images = T_map_opt, scene.nearest_images(T_map_opt, c.images)
        solved: SolvedPose | None = None
        for radius in (window, _ROUGH_WINDOW_PX) if window > 2.0 * _ROUGH_WINDOW_PX else (window,):
            matches = guided_matches(
                scene.structure,
                T,
                images,
                view.rays,
                view.tree,
                view.features.descriptors,
                view.half_view,
                scene.focal_px,
                radius,
                0.75,
            )
            if len(matches.point) < c.min_inliers:
                break
            if radius > _ROUGH_WINDOW_PX:
                T = self._turned(T, matches.offset_px)
            solved = refine_pose(
                T,
                view.rays[matches.keypoint],
                scene.structure.points[matches.point],
                scene.focal_px,
                _LEAST_WINDOW_PX,
                c.min_inliers,
                iterations=6,
            )
            if solved is None:
                break
            T = solved.T_map_opt
        else:
            assert solved is not None
            found = self._judge.verify(view, solved, prior, images, rounds=1)
            self.timings_ms = {
                "extract": (extracted - started) * 1e3,
                "track": (time.perf_counter() - extracted) * 1e3,
            }
            return found if found is not None and found.solved.count >= c.min_inliers else None
        self.timings_ms = {
            "extract": (extracted - started) * 1e3,
            "track": (time.perf_counter() - extracted) * 1e3,
        }
        return None

    def sigma_rad(self, covariance: Array) -> float:
        """How uncertain a view is: the turn, and the move as seen from the median depth."""
        turn = np.trace(covariance[:3, :3])
        move = np.trace(covariance[3:, 3:]) / self._scene.structure.median_depth**2
        return float(np.sqrt((turn + move) / 2.0))

    def _window_px(self, covariance: Array) -> float:
        sigma = self.sigma_rad(covariance) * self._scene.focal_px
        return float(np.clip(3.0 * sigma, _LEAST_WINDOW_PX, self._config.window_px))

    def _turned(self, T: SE3, offset_px: Array) -> SE3:
        """The prediction turned such that the median offset vanishes: most of an error of prediction is a turn."""
        dx, dy = np.median(offset_px, axis=0) / self._scene.focal_px
        # By the interaction matrix at the image centre: x moves by -w_y, y by w_x.
        return T @ SE3.exp([dy, -dx, 0.0, 0.0, 0.0, 0.0])
