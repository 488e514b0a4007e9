"""The map refines what a method proposes: matched where the proposal puts the points, solved, verified.

A proposal is a pose with a covariance, whoever made it: the last pose moved by optical flow, a network's regression. It
is matched in windows that its own uncertainty sizes. In a narrow window most matches are right, and least squares find
the pose; in a wide one most are chance, and RANSAC does. What the map does not confirm is no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig, TrackingConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.geometry.pose_solver import refine_pose, solve_pose
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.map_based.guided_matching import GuidedMatches, guided_matches, points_of
from localizer_ros.localization.map_based.search import SearchResult, ViewResult, search_in_passes
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
# Windows of proposals end at this share of the focal length, about 18 deg. Of Red Kitchen's test frames, proposed by a
# regressor that is off by 21 cm and 6.7 deg (medians; p90 63 cm and 12.5 deg), 82 % were confirmed with windows of at
# most 80 px, 86 % with 160 px and 87 % with 300 px, at three times the time.
_WIDEST_OF_FOCAL = 0.33
# Where the map does not confirm what a method proposes, so many of the most similar keyframes are proposals beside it:
# no method is worse than its nearest image.
_NEAREST_IMAGES = 3
# Fewer inliers than this are asked of RANSAC even where a search wants more: verification finds the others.
_LEAST_SOLVED = 8


class Refiner:
    """Finds the camera near a proposed pose.

    Args:
        scene: the map.
        config: keyframes and inliers.
        verifier: verifies and rates poses.
        window_px: of the search around a predicted point, at most.
    """

    def __init__(
        self, scene: MapScene, config: TrackingConfig, verifier: PoseVerifier, window_px: float
    ) -> None:
        self._scene, self._config, self._verifier = scene, config, verifier
        self._widest_px = window_px

    def refine(
        self, view: View, T_map_refined: SE3, covariance: Array, prior: PoseEstimate | None
    ) -> VerifiedPose | None:
        """The verified pose near a proposal, by least squares, with any confidence; None when too few points are there.

        Args:
            view: of the frame.
            T_map_refined: proposed pose, a few degrees off at most.
            covariance: (6, 6) of the proposal in its tangent.
            prior: for the confidence.
        """
        window_px, T, point_map = self._window_px(covariance), T_map_refined, self._scene.point_map
        keyframes = self._scene.nearest_keyframes(T, self._config.images)
        known = points_of(point_map, keyframes)
        rough = window_px > _ROUGH_WINDOWS * _LEAST_WINDOW_PX
        for radius_px in (window_px, _LEAST_WINDOW_PX) if rough else (window_px,):
            wide = radius_px > _LEAST_WINDOW_PX
            looked_for = points_of(point_map, keyframes[:_ROUGH_KEYFRAMES]) if wide else known
            matches = guided_matches(point_map, looked_for, T, view, radius_px / self._scene.focal_px)
            solved = self._least_squares(view, T, matches, wide)
            if solved is None:
                return None
            T = solved
        verified = self._verifier.verify(view, T, prior, known, rounds=1)
        return (
            verified if verified is not None and verified.solved.count >= self._config.min_inliers else None
        )

    def find(
        self,
        view: View,
        T_map_refined: SE3,
        covariance: Array | None,
        prior: PoseEstimate | None,
        search: SearchConfig,
    ) -> ViewResult:
        """The same by RANSAC, for proposals that are so far off that most matches in their windows are chance.

        Args:
            view: of the frame.
            T_map_refined: proposed pose.
            covariance: (6, 6) of the proposal in its tangent; None = it is as far off as one may be.
            prior: for the confidence.
            search: of RANSAC.
        """
        scene = self._scene
        window_px = self._widest_px if covariance is None else self._window_px(covariance)
        known = points_of(scene.point_map, scene.nearest_keyframes(T_map_refined, self._config.images))
        matches = guided_matches(scene.point_map, known, T_map_refined, view, window_px / scene.focal_px)
        solved = solve_pose(
            view.rays[matches.keypoint],
            scene.point_map.points[matches.point],
            scene.focal_px,
            search.max_error_px,
            search.max_iterations,
            search.seed,
            min(search.min_inliers, _LEAST_SOLVED),
        )
        if solved is None:
            return ViewResult(
                None, f"few inliers among {len(matches.point)} matches within {window_px:.0f} px"
            )
        verified = self._verifier.verify(view, solved.T_map_refined, prior)
        if verified is None:
            return ViewResult(None, f"pose of {solved.count} inliers was not confirmed by its surroundings")
        return ViewResult(verified)

    def surest(self, tried: Sequence[VerifiedPose], enough: float) -> VerifiedPose:
        """The surest of several poses of one view; see :meth:`PoseVerifier.surest`."""
        return self._verifier.surest(tried, enough)

    def _least_squares(self, view: View, T: SE3, matches: GuidedMatches, wide: bool) -> SE3 | None:
        """The pose that the matches in a window agree on."""
        focal_px, min_inliers = self._scene.focal_px, self._config.min_inliers
        if len(matches.point) < min_inliers:
            return None
        if wide:
            T = _turned(T, matches.offset * focal_px, focal_px)
        solved = refine_pose(
            T,
            view.rays[matches.keypoint],
            self._scene.point_map.points[matches.point],
            focal_px,
            _FIRST_ERROR_PX,
            min_inliers,
            iterations=_FIRST_ITERATIONS,
        )
        return None if solved is None else solved.T_map_refined

    def _window_px(self, covariance: Array) -> float:
        sigma_px = self._scene.view_sigma_rad(covariance) * self._scene.focal_px
        return float(np.clip(_WINDOW_SIGMAS * sigma_px, _LEAST_WINDOW_PX, self._widest_px))


@dataclass(frozen=True, eq=False)
class ProposalSearch:
    """Implements ``GlobalLocalizer`` and ``ViewSearch`` for one frame, by what a method proposes for it.

    Attributes:
        scene: the map.
        config: of the search.
        refiner: with windows as wide as proposals need.
        propose: what the method observes in the frame; asked for where nothing else gives a pose.
        source: name of the method.
    """

    scene: MapScene
    config: SearchConfig
    refiner: Refiner
    propose: Callable[[], Observation]
    source: str

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See :class:`GlobalLocalizer`."""
        return search_in_passes(self, self.scene, self.config, self.source, frame, prior)

    def search(self, frame: Frame, view: View, prior: PoseEstimate | None, timer: StageTimer) -> ViewResult:
        """See :class:`ViewSearch`."""
        proposed = self._proposed(view, prior)
        timer.lap("refine")
        least = self.scene.confidence.least_accepted(self.config.max_wrong)
        if proposed.verified is not None and proposed.verified.confidence >= least:
            return proposed
        tried = [] if proposed.verified is None else [proposed.verified]
        tried += self._nearest(frame, view, prior)
        timer.lap("nearest_image")
        return ViewResult(self.refiner.surest(tried, least)) if tried else proposed

    def _proposed(self, view: View, prior: PoseEstimate | None) -> ViewResult:
        """What the method's proposal becomes."""
        proposed = self.propose()
        if proposed.absolute is None:
            return ViewResult(None, proposed.reason)
        T = self.scene.refined_pose(proposed.absolute.T_map_cam)
        result = self.refiner.find(view, T, proposed.absolute.covariance, prior, self.config)
        reason = f"the map does not confirm the pose that {self.source} proposes ({result.reason})"
        return result if result.verified is not None else ViewResult(None, reason)

    def _nearest(self, frame: Frame, view: View, prior: PoseEstimate | None) -> list[VerifiedPose]:
        """What the keyframes most like this frame become, where the map confirms them."""
        similar, _ = self.scene.similar_keyframes(self.scene.global_descriptor(frame, view), _NEAREST_IMAGES)
        poses = self.scene.point_map.T_map_refined[self.scene.database.keyframe[similar]]
        results = (self.refiner.find(view, SE3.from_matrix(T), None, prior, self.config) for T in poses)
        return [result.verified for result in results if result.verified is not None]


def proposal_window_px(scene: MapScene) -> float:
    """Widest window around a predicted point that the pose of a proposal is looked for in."""
    return _WIDEST_OF_FOCAL * scene.focal_px


def _turned(T: SE3, offset_px: Array, focal_px: float) -> SE3:
    """The prediction turned such that the median offset vanishes: most of an error of prediction is a turn."""
    dx, dy = np.median(offset_px, axis=0) / focal_px
    # By the interaction matrix at the image centre: x moves by -w_y, y by w_x.
    return T @ SE3.exp([dy, -dx, 0.0, 0.0, 0.0, 0.0])
