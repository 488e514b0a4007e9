"""Verification of a pose: whether the points that should be visible are where they should be, and how sure that makes.

A success of a search is more than many inliers. The points that the nearest keyframes saw are projected with the pose
and looked for near where they should be: a wrong pose finds few of them, and not where they should be. Their share,
number, coverage of the image and errors, and the prior make the confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Camera, Float32, Index, PoseEstimate
from localizer_ros.geometry.pose_solver import SolvedPose, coverage_of, refine_pose
from localizer_ros.geometry.rays import half_view_of
from localizer_ros.localization.map_based.guided_matching import guided_matches
from localizer_ros.scene.map_scene import MapScene, View

# Keyframes whose points a pose must show again.
_KEYFRAMES = 8
# Radius of looking, px, in the first round and in the later ones, and largest error of an inlier, px.
_FIRST_RADIUS_PX, _RADIUS_PX, _INLIER_PX = 6.0, 4.0, 4.0
# Fewer points are no pose, whatever the search asks for.
_FEWEST_POINTS = 8
# A keypoint that looks like a point lies anywhere near it by chance. Matches within this radius say how many inliers
# chance makes, and a pose must have more by so many standard deviations. Of frames of Red Kitchen, proposed by a
# regressor and found by RANSAC, 22 right poses had 8.6 to 70 more, and five of six wrong ones -0.2 to 3.4, with
# confidences of 0.4 to 0.9; of another place (TUM fr1_rpy) the two that were taken for right had -1.6 and 0.6.
_BACKGROUND_PX, _LEAST_EXCESS = 12.0, 5.0
# Squared Mahalanobis distance (six degrees of freedom) that one pose in ten thousand exceeds.
_AGREEMENT = 27.9
# The logistic function of confidence. Its weights were set by hand on 7-Scenes Red Kitchen with one mapping sequence
# left out at a time (62 of 70 frames answered, none wrong); of frames of another place (TUM fr1_rpy in that map, and
# the other way round) 0 of 87 were answered. What counts as 0: so many inliers, such a share of the points expected
# in view, such a share of the image's cells with an inlier.
_USUAL_COUNT, _USUAL_SHARE, _USUAL_COVERAGE = 25.0, 0.08, 0.15
_COUNT_WEIGHT, _SHARE_WEIGHT, _COVERAGE_WEIGHT, _PRIOR_WEIGHT = 2.5, 2.0, 3.0, 1.0
# Inliers of a right pose err by 1.8 to 3.5 times as much as the map's own observations (medians), even from where
# nobody has been; inliers of a pose that is one floor tile off, which fit by chance, by 3.3 to 6.7 times as much.
_USUAL_ERROR, _ERROR_WEIGHT = 3.0, 8.0
# No keypoint is better than this, whatever a map of few observations says.
_LEAST_ERROR_PX = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedPose:
    """A pose and the map points that confirm it.

    Attributes:
        solved: pose and inliers of the matches.
        points: (K,) map points matched.
        xy_px: (K, 2) the keypoints that they were matched with.
        rays: (K, 2) where those look, plane z = 1.
        visible: number of points that should have been seen.
        coverage: share of the image's cells with an inlier.
        agrees: whether the prior allows it; None where there was none.
        confidence: 0..1.
    """

    solved: SolvedPose
    points: Index
    xy_px: Float32
    rays: Array
    visible: int
    coverage: float
    agrees: bool | None
    confidence: float


class PoseVerifier:
    """Verifies and rates poses in a map.

    Args:
        scene: the map.
        min_inliers: of the search; a verified pose has as many, or 8.
    """

    def __init__(self, scene: MapScene, min_inliers: int) -> None:
        self._scene = scene
        self._min_inliers = min(min_inliers, _FEWEST_POINTS)

    def verify(
        self,
        view: View,
        T_map_refined: SE3,
        prior: PoseEstimate | None,
        keyframes: Index | None = None,
        rounds: int = 2,
    ) -> VerifiedPose | None:
        """The pose refined on what it should show, and rated; None when that is not there.

        Args:
            view: of a frame.
            T_map_refined: the pose, a few pixels off at most.
            prior: for the confidence.
            keyframes: whose points are looked for; None = those of the view nearest to the pose.
            rounds: of looking, each from the pose of the one before.
        """
        scene = self._scene
        T, radius_px = T_map_refined, _FIRST_RADIUS_PX
        refined: SolvedPose | None = None
        for _ in range(rounds):
            near = scene.nearest_keyframes(T, _KEYFRAMES) if keyframes is None else keyframes
            matches = guided_matches(scene.point_map, T, near, view, radius_px / scene.focal_px)
            refined = refine_pose(
                T,
                view.rays[matches.keypoint],
                scene.point_map.points[matches.point],
                scene.focal_px,
                _INLIER_PX,
                self._min_inliers,
            )
            if refined is None:
                return None
            T, radius_px = refined.T_map_refined, _RADIUS_PX
        assert refined is not None
        around = guided_matches(scene.point_map, T, near, view, _BACKGROUND_PX / scene.focal_px)
        errors_px = np.linalg.norm(around.offset, axis=1) * scene.focal_px
        if excess_over_chance(errors_px, _INLIER_PX, _BACKGROUND_PX) < _LEAST_EXCESS:
            return None
        return self.rated(
            view.camera,
            refined,
            matches.point,
            view.features.xy_px[matches.keypoint],
            view.rays[matches.keypoint],
            matches.visible,
            prior,
        )

    def rated(
        self,
        camera: Camera,
        solved: SolvedPose,
        points: Index,
        xy_px: Float32,
        rays: Array,
        visible: int,
        prior: PoseEstimate | None,
    ) -> VerifiedPose:
        """A pose with its confidence.

        Args:
            camera: of the frame.
            solved: the pose, and which of the matches are its inliers.
            points: (K,) map points matched.
            xy_px: (K, 2) the keypoints that they were matched with.
            rays: (K, 2) where those look, plane z = 1.
            visible: number of points that should have been seen.
            prior: what is known of the pose otherwise.
        """
        coverage = coverage_of(rays[solved.inliers], half_view_of(camera))
        agrees = self._agrees(solved, prior)
        confidence = self.confidence(camera, solved, visible, coverage, agrees)
        return VerifiedPose(solved, points, xy_px, rays, visible, coverage, agrees, confidence)

    def confidence(
        self, camera: Camera, solved: SolvedPose, visible: int, coverage: float, agrees: bool | None
    ) -> float:
        """How far to believe a pose, 0..1.

        Args:
            camera: of the frame.
            solved: the pose and its inliers.
            visible: number of points that should have been seen.
            coverage: share of the image's cells with an inlier.
            agrees: whether the prior allows it; None where there was none.
        """
        count = solved.count
        share = count / max(visible, 1)
        logit = (
            _COUNT_WEIGHT * np.log(count / _USUAL_COUNT)
            + _SHARE_WEIGHT * np.log(max(share, 1e-3) / _USUAL_SHARE)
            + _COVERAGE_WEIGHT * (coverage - _USUAL_COVERAGE)
        )
        error = float(np.median(solved.error_px[solved.inliers])) / self._map_error_px(camera)
        logit -= _ERROR_WEIGHT * np.log(max(error / _USUAL_ERROR, 1.0))
        if agrees is not None:
            logit += _PRIOR_WEIGHT if agrees else -_PRIOR_WEIGHT
        return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))

    def _agrees(self, solved: SolvedPose, prior: PoseEstimate | None) -> bool | None:
        """Whether a pose is where the prior says, as far as both are certain; None when the prior does not say."""
        if prior is None or prior.covariance is None:
            return None
        T_map_cam, systematic = self._scene.given_pose(solved.T_map_refined)
        noise = compose_covariance(solved.covariance, self._scene.point_map.T_cam_refined.inverse())
        difference = (prior.T_map_cam.inverse() @ T_map_cam).log()
        distance = difference @ np.linalg.solve(prior.covariance + systematic + noise, difference)
        return bool(distance < _AGREEMENT)

    def _map_error_px(self, camera: Camera) -> float:
        """Error of the map's own observations, in its pixels, if they had been made by the frame's camera."""
        point_map = self._scene.point_map
        found = max(point_map.statistics.get("reprojection_error_px", np.inf), _LEAST_ERROR_PX)
        return float(found * max(1.0, point_map.camera.given.K[0, 0] / camera.K[0, 0]))


def excess_over_chance(error_px: Array, inlier_px: float, background_px: float) -> float:
    """By how many standard deviations there are more inliers than an even background of matches would make.

    Args:
        error_px: (N,) lengths of two-dimensional errors.
        inlier_px: radius of inliers.
        background_px: radius within which there are matches; those beyond do not count.
    """
    inliers = int(np.count_nonzero(error_px < inlier_px))
    around = int(np.count_nonzero(error_px < background_px)) - inliers
    share = inlier_px**2 / (background_px**2 - inlier_px**2)
    expected = share * around
    # Of two counts: that of the inliers, as chance would have it, and that of the ring, scaled to their area.
    return float((inliers - expected) / np.sqrt(max(expected, 1.0) + share * expected))
