"""Full search: from an image and nothing else to a pose.

``hierarchical``: retrieve the nearest mapping images, split them into places (connected components of
covisibility), and for each place in order match the query with that place's points and solve; the first success
ends the search. ``direct``: match with the points of the whole map, for small maps.

A success is more than many inliers. After solving, the points that should be visible from the pose are looked
for again, near where they should be (guided matching): a wrong pose finds few of them, and not where they should be.
Their share, number, spread and errors, the rival place and the prior make the confidence; below the threshold
there is no answer, only a reason.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, ConfigError, Float32, Frame, Index, PoseEstimate
from localizer_ros.features.local_features import point_matches
from localizer_ros.features.matchers import open_matcher
from localizer_ros.geometry.pose_solver import SolvedPose, coverage_of, refine_pose, solve_pose
from localizer_ros.localization.map_based.guided_matching import guided_matches
from localizer_ros.localization.map_based.reranking import matched_images
from localizer_ros.localization.map_based.search import StructureLocalizer
from localizer_ros.scene.map_scene import MapScene, View

# Images whose points a found pose must show again.
_VERIFYING_IMAGES = 8
_VERIFYING_RADIUS_PX = 6.0
# Squared Mahalanobis distance (six degrees of freedom) that one pose in ten thousand exceeds.
_AGREEMENT = 27.9
# Inliers of a right pose err by two to three times as much as the map's own observations (medians), even from where
# nobody has been; inliers of a pose that is one floor tile off, which fit by chance, by four to six times as much.
_USUAL_ERROR, _ERROR_WEIGHT = 3.0, 8.0
# No keypoint is better than this, whatever a map of few observations says.
_LEAST_ERROR_PX = 0.4
# Points in common that make two mapping images see the same place.
_COVISIBLE_POINTS = 12
# Descriptors of one point that a query is compared with.
_VIEWS_OF_A_POINT = 3


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A verified pose.

    Attributes:
        solved: pose and inliers of the guided matches.
        points: (K,) map points matched.
        xy_px: (K, 2) the keypoints that they were matched with.
        rays: (K, 2) where those look, plane z = 1.
        visible: points that should have been seen.
        spread: share of the image's cells with an inlier.
        confidence: 0..1.
        agrees: with the prior; None where there was none.
        carried: frames since the points were matched by their descriptors, 0 = in this one.
        kept: share of the points matched then that is still there.
    """

    solved: SolvedPose
    points: Index
    xy_px: Float32
    rays: Array
    visible: int
    spread: float
    confidence: float
    agrees: bool | None
    carried: int = 0
    kept: float = 1.0


class HierarchicalLocalizer(StructureLocalizer):
    """Implements ``GlobalLocalizer`` on a map of points.

    Args:
        scene: map and index.
        config: thresholds.
        direct: match with the whole map instead of retrieved places.

    Raises:
        ConfigError: a matcher of images with ``direct``, or one that the scene has not brought along.

    Attributes:
        found: the last verified pose, None when there was none.
    """

    def __init__(self, scene: MapScene, config: SearchConfig, direct: bool = False) -> None:
        super().__init__(scene, config)
        self._direct = direct
        if direct and config.matcher != "mutual":
            raise ConfigError(
                f"search.matcher: {config.matcher} matches images; method direct has none to match with"
            )
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)
        self._source = "direct" if direct else "hierarchical"
        self.found: Found | None = None

    @property
    def min_confidence(self) -> float:
        """An answer below is none."""
        return self._config.min_confidence

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        """See :class:`GlobalLocalizer`."""
        c = self._config
        self.timings_ms, self.reason, self.found = {}, "", None
        best: Found | None = None
        for fine in {"never": (False,), "fallback": (False, True), "always": (True,)}[c.fine_features]:
            started = time.perf_counter()
            view = self._scene.view(frame, self._scene.point_map.settings.features.max_keypoints, fine)
            self._lap("extract", started)
            found = self.search(view, prior)
            if found is not None and (best is None or found.confidence > best.confidence):
                best = found
            if best is not None and best.confidence >= c.min_confidence:
                break
        self.found = best
        if best is None:
            return None
        if best.confidence < c.min_confidence:
            self.reason = (
                f"confidence {best.confidence:.2f} of {best.solved.count} inliers, "
                f"{best.visible} points expected in view"
            )
            return None
        self.reason = ""
        return self._scene.answer(frame, best.solved, self._source, best.confidence)

    def search(self, view: View, prior: PoseEstimate | None) -> Found | None:
        """The best verified pose of a view, with any confidence; None with ``reason`` when there is none."""
        c, point_map = self._config, self._scene.point_map
        if len(view.features) < c.min_inliers:
            self.reason = f"too few keypoints ({len(view.features)})"
            return None
        started = time.perf_counter()
        places: list[Index | None] = [None] if self._direct else list(self._places(view))
        self._lap("retrieve", started)
        if not places:
            self.reason = "no neighbours: no mapping image carries points"
            return None
        best: Found | None = None
        rival: Found | None = None
        reasons: list[str] = []
        for place in places:
            started = time.perf_counter()
            keypoint, point = self._matches(view, place)
            self._lap("match", started)
            if len(keypoint) < c.min_inliers:
                reasons.append(f"too few matches ({len(keypoint)})")
                continue
            started = time.perf_counter()
            solved = solve_pose(
                view.rays[keypoint],
                point_map.points[point],
                self._scene.focal_px,
                c.max_error_px,
                c.max_iterations,
                c.seed,
                min(c.min_inliers, 8),
            )
            self._lap("solve", started)
            if solved is None:
                reasons.append(f"few inliers among {len(keypoint)} matches")
                continue
            started = time.perf_counter()
            found = self.verify(view, solved.T_map_refined, prior)
            self._lap("verify", started)
            if found is None:
                reasons.append(f"pose of {solved.count} inliers was not confirmed by its surroundings")
                continue
            if best is None or found.confidence > best.confidence:
                best, rival = found, best
            elif rival is None or found.confidence > rival.confidence:
                rival = found
            # First success ends the search; a doubtful one is held against the next place.
            if best.confidence > 0.9:
                break
        if best is None:
            self.reason = "; ".join(dict.fromkeys(reasons)) or "no match"
            return None
        if rival is not None and _apart(best, rival):
            # Two places that explain the image: believe the better one only as far as it is better.
            share = best.solved.count / max(best.solved.count + 2 * rival.solved.count, 1)
            best = replace(best, confidence=best.confidence * min(1.0, 1.5 * share))
        return best

    def verify(
        self,
        view: View,
        T_map_refined: SE3,
        prior: PoseEstimate | None,
        images: Index | None = None,
        rounds: int = 2,
    ) -> Found | None:
        """Look for what a pose should show, refine on it, and judge it.

        Args:
            view: of a frame.
            T_map_refined: the pose, a few pixels off at most.
            prior: for the confidence.
            images: mapping images whose points are looked for; None = the nearest to the pose.
            rounds: of looking, each from the pose of the one before.
        """
        c, scene = self._config, self._scene
        T, radius = T_map_refined, _VERIFYING_RADIUS_PX
        refined: SolvedPose | None = None
        for _ in range(rounds):
            near = scene.nearest_keyframes(T, _VERIFYING_IMAGES) if images is None else images
            matches = guided_matches(
                scene.point_map,
                T,
                near,
                view.rays,
                view.tree,
                view.features.descriptors,
                view.half_view,
                scene.focal_px,
                radius,
                0.75,
            )
            refined = refine_pose(
                T,
                view.rays[matches.keypoint],
                scene.point_map.points[matches.point],
                scene.focal_px,
                4.0,
                min(c.min_inliers, 8),
            )
            if refined is None:
                return None
            T, radius = refined.T_map_refined, 4.0
        assert refined is not None
        inlier_rays = view.rays[matches.keypoint[refined.inliers]]
        spread = coverage_of(inlier_rays, view.half_view)
        agrees = self.agrees(refined, prior)
        confidence = self.confidence(view.frame, refined, matches.visible, spread, agrees)
        return Found(
            refined,
            matches.point,
            view.features.xy_px[matches.keypoint],
            view.rays[matches.keypoint],
            matches.visible,
            spread,
            confidence,
            agrees,
        )

    def agrees(self, solved: SolvedPose, prior: PoseEstimate | None) -> bool | None:
        """Whether a pose is where the prior says, as far as both are certain; None when the prior does not say."""
        if prior is None or prior.covariance is None:
            return None
        T_map_cam, systematic = self._scene.given_pose(solved.T_map_refined)
        noise = compose_covariance(solved.covariance, self._scene.point_map.T_cam_refined.inverse())
        difference = (prior.T_map_cam.inverse() @ T_map_cam).log()
        distance = difference @ np.linalg.solve(prior.covariance + systematic + noise, difference)
        return bool(distance < _AGREEMENT)

    def confidence(
        self, frame: Frame, solved: SolvedPose, visible: int, spread: float, agrees: bool | None
    ) -> float:
        """How far to believe a pose, 0..1.

        Args:
            frame: the image.
            solved: the pose and its inliers.
            visible: points that should have been seen.
            spread: share of the image's cells with an inlier.
            agrees: with the prior.
        """
        count = solved.count
        share = count / max(visible, 1)
        # Weights by logistic regression, see docs/explanation/maps.md.
        logit = 2.5 * np.log(count / 25.0) + 2.0 * np.log(max(share, 1e-3) / 0.08) + 3.0 * (spread - 0.15)
        error = float(np.median(solved.error_px[solved.inliers])) / self._map_error_px(frame)
        logit -= _ERROR_WEIGHT * np.log(max(error / _USUAL_ERROR, 1.0))
        if agrees is not None:
            logit += 1.0 if agrees else -1.0
        return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))

    def _map_error_px(self, frame: Frame) -> float:
        """Error of the map's own observations, in its pixels, if they had been made by the frame's camera."""
        point_map = self._scene.point_map
        found = max(point_map.statistics.get("reprojection_error_px", np.inf), _LEAST_ERROR_PX)
        return float(found * max(1.0, point_map.camera.given.K[0, 0] / frame.camera.K[0, 0]))

    def _matches(self, view: View, place: Index | None) -> tuple[Index, Index]:
        """Keypoints of a view and the points of a place (None = of the whole map) that they seem to show."""
        point_map = self._scene.point_map
        if place is not None and self._config.matcher != "mutual":
            return self._image_matches(view, place)
        if place is None:
            database = point_map.mean_descriptors
            point_of = np.arange(len(point_map.points), dtype=np.int32)
        else:
            observations = self._few_views(point_map.observations_of(place))
            database = point_map.unit_descriptors[observations]
            point_of = point_map.observation_point[observations]
        return point_matches(view.features.descriptors, database, point_of, self._config.ratio)

    def _image_matches(self, view: View, place: Index) -> tuple[Index, Index]:
        """The same by the matcher, image by image; what several images say is said once."""
        point_map, query = self._scene.point_map, self._scene.query_side(view)
        pairs = [np.zeros((0, 2), dtype=np.intp)]
        for image in place:
            matched = self._matcher.match(query, self._scene.keyframe_side(int(image)))
            point = point_map.observation_point[point_map.image_start[image] + matched[:, 1]]
            pairs.append(np.stack([matched[:, 0], point], axis=1).astype(np.intp))
        keypoint, point = np.unique(np.concatenate(pairs), axis=0).T
        return keypoint, point

    def _places(self, view: View) -> list[Index]:
        """Retrieved mapping images, split by covisibility; the place with the most of them first."""
        c, database, point_map = self._config, self._scene.database, self._scene.point_map
        query = self._scene.global_descriptor(view)
        if c.rerank == "always":
            found, _ = self._scene.similar_keyframes(query, max(c.neighbours, c.rerank_images))
            alike = matched_images(self._scene, view, database.keyframe[found].tolist(), self._matcher, c)
            images = np.array([matched.image for matched in alike[: c.neighbours]], dtype=np.intp)
        else:
            found, _ = self._scene.similar_keyframes(query, c.neighbours)
            images = database.keyframe[found].astype(np.intp)
        if len(images) == 0:
            return []
        linked = point_map.covisibility[np.ix_(images, images)] >= _COVISIBLE_POINTS
        _, label = connected_components(csr_array(linked.astype(np.int8)), directed=False)
        groups = [images[label == value] for value in dict.fromkeys(label.tolist())]
        return sorted(groups, key=len, reverse=True)

    def _few_views(self, observations: Index) -> Index:
        """At most a few observations of each point, of the most similar images: more cost time and add little."""
        point = self._scene.point_map.observation_point[observations]
        order = np.argsort(point, kind="stable")
        ordered = point[order]
        run_start = np.searchsorted(ordered, ordered, side="left")
        return np.asarray(observations[np.sort(order[np.arange(len(order)) - run_start < _VIEWS_OF_A_POINT])])


def _apart(a: Found, b: Found) -> bool:
    return a.solved.T_map_refined.distance_to(
        b.solved.T_map_refined
    ) > 0.25 or a.solved.T_map_refined.angle_to(b.solved.T_map_refined) > np.radians(5.0)
