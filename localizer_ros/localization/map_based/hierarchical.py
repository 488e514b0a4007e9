"""Full search: from an image and nothing else to a pose.

``hierarchical`` (Sarlin et al. 2019): retrieve the most similar keyframes, split them into places, and for each place
in order match the query with that place's points, solve and verify; the first success ends the search. ``direct``:
match with the points of the whole map, for small maps.
"""

from __future__ import annotations

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.seen import NO_POINTS
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Frame, Index, PoseEstimate
from localizer_ros.geometry.pose_solver import solve_pose
from localizer_ros.localization.map_based.places import Places, is_rival
from localizer_ros.localization.map_based.search import SearchResult, ViewResult, search_in_passes
from localizer_ros.localization.map_based.verification import PoseVerifier, VerifiedPose
from localizer_ros.scene.map_scene import MapScene, View

# Fewer inliers than this are asked of RANSAC even where a search wants more: verification finds the others.
_LEAST_SOLVED = 8
# A pose of so many times the inliers that an answer must have depends little on where it was begun from. In a map of
# 199 points one of 15 inliers was off by 8 cm, and by 1 cm where it began from the matches of all images; on Red
# Kitchen, TUM fr1_rpy and a simulated room nine of ten poses have 80 inliers or more.
_MANY = 3


class PlaceSearch:
    """Searches the places of a map for the pose of a view.

    Args:
        scene: map and index.
        config: thresholds.
        whole: the map is one place, without retrieval.

    Raises:
        ConfigError: see :class:`Places`.
    """

    def __init__(self, scene: MapScene, config: SearchConfig, whole: bool = False) -> None:
        self._scene, self._config = scene, config
        self._places = Places(scene, config, whole)
        self._verifier = PoseVerifier(scene, config.min_inliers)
        # A pose this sure ends the search; a less sure one is held against the next place.
        self._enough = scene.confidence.least_accepted(config.max_wrong)

    def search(self, frame: Frame, view: View, prior: PoseEstimate | None, timer: StageTimer) -> ViewResult:
        """The best verified pose of a view.

        Args:
            frame: the image.
            view: its features.
            prior: for the confidence.
            timer: of the stages retrieve, match, solve and verify, as laps.
        """
        if len(view.features) < self._config.min_inliers:
            return ViewResult(None, f"too few keypoints ({len(view.features)})")
        places = self._places.retrieve(frame, view)
        timer.lap("retrieve")
        if not places:
            return ViewResult(None, "no neighbours: the index holds no keyframes")
        tried: list[VerifiedPose] = []
        reasons: list[str] = []
        matched_px = NO_POINTS
        for place in places:
            if tried and self._is_settled(tried, places[0], place):
                continue
            result = self._try_place(view, place, prior, timer)
            if result.verified is None:
                reasons.append(result.reason)
                matched_px = max(matched_px, result.matched_px, key=len)
                continue
            tried.append(result.verified)
        if not tried:
            return ViewResult(None, "; ".join(dict.fromkeys(reasons)), matched_px)
        return ViewResult(self._verifier.surest(tried, self._enough))

    def _try_place(
        self, view: View, place: Index | None, prior: PoseEstimate | None, timer: StageTimer
    ) -> ViewResult:
        """What the attempts at a place find: the first sure pose of many points, else the last sure one, else the
        surest."""
        best: ViewResult | None = None
        for keypoint, point in self._places.attempts(view, place):
            timer.lap("match")
            result = self._pose_of(view, keypoint, point, prior, timer)
            if best is None or _confidence(result) >= min(_confidence(best), self._enough):
                best = result
            if self._is_final(best):
                break
        assert best is not None
        return best

    def _pose_of(
        self, view: View, keypoint: Index, point: Index, prior: PoseEstimate | None, timer: StageTimer
    ) -> ViewResult:
        """The verified pose that matches agree on."""
        c, scene = self._config, self._scene
        matched_px = view.features.xy_px[keypoint]
        if len(keypoint) < c.min_inliers:
            return ViewResult(None, f"too few matches ({len(keypoint)})", matched_px)
        solved = solve_pose(
            view.rays[keypoint],
            scene.point_map.points[point],
            scene.focal_px,
            c.max_error_px,
            c.max_iterations,
            c.seed,
            min(c.min_inliers, _LEAST_SOLVED),
        )
        timer.lap("solve")
        if solved is None:
            return ViewResult(None, f"few inliers among {len(keypoint)} matches", matched_px)
        verified = self._verifier.verify(view, solved.T_map_refined, prior)
        timer.lap("verify")
        if verified is None:
            reason = f"pose of {solved.count} inliers was not confirmed by its surroundings"
            return ViewResult(None, reason, matched_px)
        return ViewResult(verified)

    def _is_settled(self, tried: list[VerifiedPose], first: Index | None, place: Index | None) -> bool:
        """Whether a pose is sure enough, and the next place is no rival."""
        sure = max(verified.confidence for verified in tried) >= self._enough
        return sure and not is_rival(place, first)

    def _is_final(self, result: ViewResult) -> bool:
        """Whether further attempts would find nothing better."""
        verified = result.verified
        many = verified is not None and verified.solved.count >= _MANY * self._config.min_inliers
        return many and _confidence(result) >= self._enough


def _confidence(result: ViewResult) -> float:
    return -1.0 if result.verified is None else result.verified.confidence


class HierarchicalLocalizer:
    """Implements ``GlobalLocalizer`` on a map of points.

    Args:
        scene: map and index.
        config: thresholds.
        direct: match with the whole map instead of retrieved places.

    Raises:
        ConfigError: a matcher of images with ``direct``, or one that the scene does not hold.
    """

    def __init__(self, scene: MapScene, config: SearchConfig, direct: bool = False) -> None:
        self._scene, self._config = scene, config
        self._search = PlaceSearch(scene, config, direct)
        self._source = "direct" if direct else "hierarchical"

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See :class:`GlobalLocalizer`."""
        return search_in_passes(self._search, self._scene, self._config, self._source, frame, prior)
