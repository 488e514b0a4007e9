"""Guided tracking: from a predicted pose to the pose, at camera rate.

The points that the nearest keyframes saw are projected with the predicted pose and looked for in small windows; the
pose follows by robust least squares. Finding and describing keypoints is most of the work, so that it is done in some
frames only. In those between, the matched points are where optical flow says; their places in the map stay what they
are, and a few frames later new keypoints meet the map's own descriptors: nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.config.map_based import TrackingConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.geometry.pose_solver import refine_pose
from localizer_ros.localization.map_based.guided_matching import guided_matches
from localizer_ros.localization.map_based.optical_flow import FlowMotion
from localizer_ros.localization.map_based.verification import PoseVerifier, VerifiedPose
from localizer_ros.scene.map_scene import MapScene, View

# Points have errors of some pixels, and a narrow window around a prediction takes those that have the prediction's
# own: from predictions 0.5 deg and 1 cm apart, a window of 6 px gave poses 1.0 to 1.3 cm apart on 7-Scenes Red
# Kitchen, one of 12 px 0.3 to 1.9, one of 26 px with 12 px after it 0.1 to 0.4. A wide one takes in what repeats: in
# the simulated room, 1 m beside the path, a first window of 24 px left 79 % of smoothed poses within 5 cm, one of 12
# px 97 %.
_LEAST_WINDOW_PX = 12.0
# A window is this many standard deviations of the prediction; twice the least one or more is first searched roughly.
_WINDOW_SIGMAS, _ROUGH_WINDOWS = 3.0, 2.0
# Largest error of an inlier of the pose that verification begins from, px, and iterations to it.
_FIRST_ERROR_PX, _FIRST_ITERATIONS = 8.0, 6
# A wider window holds many keypoints: the points of so many keyframes are enough to correct a prediction roughly.
_ROUGH_KEYFRAMES = 3
# Largest error of a point that is followed: a map point's error and a keypoint's together, px.
_FOLLOWED_ERROR_PX = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A tracked pose.

    Attributes:
        verified: the pose and its points.
        age: frames since the points were matched by their descriptors, 0 = in this one.
        kept: share of the points matched then that is still there.
    """

    verified: VerifiedPose
    age: int = 0
    kept: float = 1.0

    @property
    def T_map_refined(self) -> SE3:
        """The pose."""
        return self.verified.solved.T_map_refined


class Tracker:
    """Finds the camera near a predicted pose.

    Args:
        scene: the map.
        config: windows and thresholds.
        verifier: verifies and rates poses.
    """

    def __init__(self, scene: MapScene, config: TrackingConfig, verifier: PoseVerifier) -> None:
        self._scene, self._config, self._verifier = scene, config, verifier

    def track(
        self,
        frame: Frame,
        T_map_refined: SE3,
        covariance: Array,
        prior: PoseEstimate | None,
        timer: StageTimer,
    ) -> Track | None:
        """The verified pose near a prediction, with any confidence; None when too few points were found.

        Args:
            frame: the image.
            T_map_refined: predicted pose.
            covariance: (6, 6) of the prediction in its tangent.
            prior: for the confidence.
            timer: of the stages track_extract and track_match.
        """
        with timer.stage("track_extract"):
            view = self._scene.view(frame, self._config.max_keypoints, fine=False)
        with timer.stage("track_match"):
            verified = self._match(view, T_map_refined, self._window_px(covariance), prior)
        return None if verified is None else Track(verified)

    def carry(
        self,
        frame: Frame,
        last: Track,
        motion: FlowMotion,
        T_map_refined: SE3,
        prior: PoseEstimate | None,
    ) -> Track | None:
        """The pose from the points of the last frame where optical flow has found them; None when too few are left.

        Args:
            frame: the image.
            last: of the frame that the points were followed from.
            motion: those points in this frame.
            T_map_refined: predicted pose.
            prior: for the confidence.
        """
        solved = refine_pose(
            T_map_refined,
            motion.rays,
            self._scene.point_map.points[motion.map_point],
            self._scene.focal_px,
            _FOLLOWED_ERROR_PX,
            self._config.min_inliers,
        )
        if solved is None:
            return None
        verified = self._verifier.rated(
            frame.camera,
            solved,
            motion.map_point,
            motion.xy_px,
            motion.rays,
            last.verified.visible,
            prior,
        )
        kept = last.kept * motion.share * solved.count / len(motion.rays)
        return Track(verified, last.age + 1, kept)

    def _match(self, view: View, T: SE3, window_px: float, prior: PoseEstimate | None) -> VerifiedPose | None:
        """Descriptors near a prediction, from a coarse window to the fine one of verification."""
        c, scene = self._config, self._scene
        keyframes = scene.nearest_keyframes(T, c.images)
        rough = window_px > _ROUGH_WINDOWS * _LEAST_WINDOW_PX
        for radius_px in (window_px, _LEAST_WINDOW_PX) if rough else (window_px,):
            wide = radius_px > _LEAST_WINDOW_PX
            looked_for = keyframes[:_ROUGH_KEYFRAMES] if wide else keyframes
            matches = guided_matches(scene.point_map, T, looked_for, view, radius_px / scene.focal_px)
            if len(matches.point) < c.min_inliers:
                return None
            if wide:
                T = _turned(T, matches.offset * scene.focal_px, scene.focal_px)
            solved = refine_pose(
                T,
                view.rays[matches.keypoint],
                scene.point_map.points[matches.point],
                scene.focal_px,
                _FIRST_ERROR_PX,
                c.min_inliers,
                iterations=_FIRST_ITERATIONS,
            )
            if solved is None:
                return None
            T = solved.T_map_refined
        verified = self._verifier.verify(view, T, prior, keyframes, rounds=1)
        return verified if verified is not None and verified.solved.count >= c.min_inliers else None

    def sigma_rad(self, covariance: Array) -> float:
        """How uncertain a view is: the turn, and the move as seen from the median depth."""
        turn = np.trace(covariance[:3, :3])
        move = np.trace(covariance[3:, 3:]) / self._scene.point_map.median_depth**2
        return float(np.sqrt((turn + move) / 2.0))

    def _window_px(self, covariance: Array) -> float:
        sigma_px = self.sigma_rad(covariance) * self._scene.focal_px
        return float(np.clip(_WINDOW_SIGMAS * sigma_px, _LEAST_WINDOW_PX, self._config.window_px))


def _turned(T: SE3, offset_px: Array, focal_px: float) -> SE3:
    """The prediction turned such that the median offset vanishes: most of an error of prediction is a turn."""
    dx, dy = np.median(offset_px, axis=0) / focal_px
    # By the interaction matrix at the image centre: x moves by -w_y, y by w_x.
    return T @ SE3.exp([dy, -dx, 0.0, 0.0, 0.0, 0.0])
