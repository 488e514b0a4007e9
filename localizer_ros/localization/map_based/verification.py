"""Verification of a pose: whether the points that should be visible are where they should be, and how sure that makes.

A success of a search is more than many inliers. The points that the nearest keyframes saw are projected with the pose
and looked for near where they should be: a wrong pose finds few of them, and not where they should be. Their share,
number, coverage of the image and errors, and the prior are the evidence; what the scene has learned of its own answers
makes a probability of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.statistics import median
from localizer_ros.core.types import Array, Camera, Float32, Index, PoseEstimate
from localizer_ros.geometry.pose_solver import SolvedPose, coverage_of, refine_pose
from localizer_ros.geometry.rays import half_view_of
from localizer_ros.localization.map_based.guided_matching import KnownPoints, guided_matches, points_of
from localizer_ros.scene.confidence import Evidence
from localizer_ros.scene.map_scene import MapScene, View

AGREEMENT = 27.9
"""Squared Mahalanobis distance (six degrees of freedom) that one pose in ten thousand exceeds."""

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
# Poses further apart than this are rivals, not the same answer twice: a share of the median depth, or a turn.
_APART_OF_DEPTH, _APART_RAD = 0.1, np.radians(5.0)
# Poses in a map that are closer in time than these seconds weigh as one. It makes the uncertainty of what is fused from
# them honest: with 0.25 s (and motions in proportion) the normalised squared errors of fused poses had a median of 1.8
# on 7-Scenes Red Kitchen and 0.7 on TUM fr1_rpy, with this 4.5 and 1.7, where 5.35 is due.
_CORRELATION_S = 0.1
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
        X_map: (K, 3) where the points are; a map that was made for one frame is gone afterwards.
        T_map_cam: the pose in the frame of the given poses.
        covariance: (6, 6) in its tangent, not inflated.
        evidence: what speaks for the pose.
        confidence: probability that it is right.
    """

    solved: SolvedPose
    points: Index
    xy_px: Float32
    rays: Array
    X_map: Float32
    T_map_cam: SE3
    covariance: Array
    evidence: Evidence
    confidence: float

    def answer(self, scene: MapScene, stamp_ns: int, source: str) -> PoseEstimate:
        """The pose with its inflated covariance.

        Args:
            scene: the map.
            stamp_ns: of the image.
            source: what has found it.
        """
        return PoseEstimate(
            stamp_ns,
            self.T_map_cam,
            self.inflated(scene),
            source,
            self.solved.count,
            self.confidence,
            _CORRELATION_S,
        )

    def inflated(self, scene: MapScene) -> Array:
        """(6, 6) the covariance, as much larger as answers of this scene have shown that are so doubtful, and that far
        from mapped views."""
        return self.covariance * scene.confidence.inflation_at(self.evidence.beyond_rad, self.confidence)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was looked for around a pose.

    Attributes:
        visible: points that should have been seen.
        excess: by how many standard deviations there are more inliers than chance makes.
        fine: keypoints of the finest octave were among those that were looked at.
    """

    visible: int
    excess: float
    fine: bool = False


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
        known: KnownPoints | None = None,
        rounds: int = 2,
    ) -> VerifiedPose | None:
        """The pose refined on what it should show, and rated; None when that is not there.

        Args:
            view: of a frame.
            T_map_refined: the pose, a few pixels off at most.
            prior: for the confidence.
            known: the points that are looked for; None = those of the views nearest to the pose.
            rounds: of looking, each from the pose of the one before.
        """
        scene = self._scene
        T, radius_px = T_map_refined, _FIRST_RADIUS_PX
        if known is None:
            known = points_of(scene.point_map, scene.nearest_keyframes(T, _KEYFRAMES))
        refined: SolvedPose | None = None
        for _ in range(rounds):
            matches = guided_matches(scene.point_map, known, T, view, radius_px / scene.focal_px)
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
        around = guided_matches(scene.point_map, known, T, view, _BACKGROUND_PX / scene.focal_px)
        errors_px = np.linalg.norm(around.offset, axis=1) * scene.focal_px
        excess = excess_over_chance(errors_px, _INLIER_PX, _BACKGROUND_PX)
        if excess < _LEAST_EXCESS:
            return None
        return self.rated(
            view.camera,
            refined,
            matches.point,
            view.features.xy_px[matches.keypoint],
            view.rays[matches.keypoint],
            Surroundings(matches.visible, excess, view.features.fine),
            prior,
        )

    def rated(
        self,
        camera: Camera,
        solved: SolvedPose,
        points: Index,
        xy_px: Float32,
        rays: Array,
        around: Surroundings,
        prior: PoseEstimate | None,
    ) -> VerifiedPose:
        """A pose with its confidence.

        Args:
            camera: of the frame.
            solved: the pose, and which of the matches are its inliers.
            points: (K,) map points matched.
            xy_px: (K, 2) the keypoints that they were matched with.
            rays: (K, 2) where those look, plane z = 1.
            around: what was looked for there.
            prior: what is known of the pose otherwise.
        """
        evidence = Evidence(
            inliers=solved.count,
            visible=around.visible,
            coverage=coverage_of(rays[solved.inliers], half_view_of(camera)),
            error=median(solved.error_px[solved.inliers]) / self._map_error_px(camera),
            excess=around.excess,
            beyond_rad=self._scene.beyond_rad(solved.T_map_refined),
            fine=around.fine,
        )
        X_map = self._scene.point_map.points[points]
        T_map_cam, covariance = self._scene.given_answer(solved)
        confidence = self._scene.confidence.probability(evidence)
        verified = VerifiedPose(
            solved, points, xy_px, rays, X_map, T_map_cam, covariance, evidence, confidence
        )
        if prior is None or prior.covariance is None:
            return verified
        agrees = self._agree(verified, prior.T_map_cam, prior.covariance)
        return self.with_evidence(verified, replace(evidence, agrees=agrees))

    def with_evidence(self, verified: VerifiedPose, evidence: Evidence) -> VerifiedPose:
        """The same pose with other evidence, rated anew."""
        return replace(verified, evidence=evidence, confidence=self._scene.confidence.probability(evidence))

    def surest(self, tried: Sequence[VerifiedPose], enough: float) -> VerifiedPose:
        """The surest of several verified poses of one view, held against the next best one that lies elsewhere.

        Args:
            tried: the poses.
            enough: of those that are so sure, only the ones that the prior allows count, where there are any: what is
                known otherwise chooses between places that explain the image.
        """
        allowed = [v for v in tried if v.evidence.agrees and v.confidence >= enough]
        best = max(allowed or tried, key=lambda verified: verified.confidence)
        elsewhere = [v for v in allowed or tried if not self._same(best, v)]
        if not elsewhere:
            return best
        rival = max(elsewhere, key=lambda verified: verified.confidence)
        evidence = replace(best.evidence, rival=rival.evidence.inliers, rival_explains=rival.confidence)
        return self.with_evidence(best, evidence)

    def _same(self, a: VerifiedPose, b: VerifiedPose) -> bool:
        T_a, T_b = a.solved.T_map_refined, b.solved.T_map_refined
        apart_m = _APART_OF_DEPTH * self._scene.point_map.median_depth
        return T_a.distance_to(T_b) <= apart_m and T_a.angle_to(T_b) <= _APART_RAD

    def _agree(self, verified: VerifiedPose, T_map_prior: SE3, prior: Array) -> bool:
        """Whether a pose is where a prior of covariance (6, 6) says, as far as both are certain."""
        covariance = prior + verified.inflated(self._scene)
        difference = (T_map_prior.inverse() @ verified.T_map_cam).log()
        return bool(difference @ np.linalg.solve(covariance, difference) < AGREEMENT)

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
