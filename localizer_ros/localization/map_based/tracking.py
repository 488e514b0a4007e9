"""Guided tracking: from a predicted pose to the pose, at camera rate.

The points that the nearest keyframes saw are projected with the predicted pose and looked for in small windows; the
pose follows by robust least squares. Finding and describing keypoints is most of the work, so that it is done in some
frames only. In those between, the matched points are where optical flow says; their places in the map stay what they
are, and a few frames later new keypoints meet the map's own descriptors: nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass

from localizer_ros.core.config.map_based import TrackingConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.geometry.pose_solver import refine_pose
from localizer_ros.localization.map_based.optical_flow import FlowMotion
from localizer_ros.localization.map_based.verification import PoseVerifier, Surroundings, VerifiedPose
from localizer_ros.localization.refine import Refiner
from localizer_ros.scene.map_scene import MapScene

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
        self._refiner = Refiner(scene, config, verifier, config.window_px)

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
            verified = self._refiner.refine(view, T_map_refined, covariance, prior)
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
        known = last.verified.evidence
        verified = self._verifier.rated(
            frame.camera,
            solved,
            motion.map_point,
            motion.xy_px,
            motion.rays,
            Surroundings(known.visible, known.excess, known.fine),
            prior,
        )
        kept = last.kept * motion.share * solved.count / len(motion.rays)
        return Track(verified, last.age + 1, kept)
