"""Retrieval alone: the poses of the most similar mapping images, averaged. No points, no relative poses.

With re-ranking, images count by how many keypoints match through one homography. The matches also give weights:
between neighbouring views an image moves nearly linearly with the camera, so the affine combination of images whose
apparent motions from the query cancel has nearly the query's pose, beyond the images as well as between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3, symmetrized, weighted_mean
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, ConfigError, Float32, Frame, Index, PoseEstimate
from localizer_ros.features.matchers import open_matcher
from localizer_ros.localization.map_based.reranking import MatchedImage, matched_images
from localizer_ros.localization.map_based.search import SearchResult
from localizer_ros.scene.map_scene import MapScene, View

# An image is rarely exactly where another one was: least sigma of an average, rad, and that times the depth.
_LEAST_SIGMA_RAD = np.radians(3.0)
# Images of other places had up to 10 matches through a homography.
_LEAST_INLIERS = 15
# Cosines are weighed by this power: those of neighbours are all near 1.
_COSINE_POWER, _LEAST_COSINE = 8, 1e-3
# Regularisation of barycentric weights, of unit descriptors: neighbours in a drive are nearly the same vector.
_RIDGE = 0.05
# On the plane z = 1: how far an apparent motion is from affine.
_MOTION_SIGMA = 0.01
# Error of an average by motion, an axis, for each unit of sum |w|: it grows as the query lies beyond the images.
_EACH_SIGMA_RAD = np.radians(0.65)


class RetrievalLocalizer:
    """Implements ``GlobalLocalizer`` by pose interpolation.

    Args:
        scene: index and poses; for re-ranking, keypoints of keyframes.
        config: how many images, how averaged.

    Raises:
        ConfigError: interpolation by motion without re-ranking, or a matcher that the scene does not hold.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        self._scene, self._config = scene, config
        self._reranked = config.rerank != "never"
        if config.interpolation == "motion" and not self._reranked:
            raise ConfigError(
                "search.interpolation: motion needs the matches of search.rerank, which is never"
            )
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See :class:`GlobalLocalizer`; ``prior`` is not used."""
        timer = StageTimer()
        scene = self._scene
        view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine=False)
        timer.lap("extract")
        query = scene.global_descriptor(frame, view)
        if not np.any(query) or len(scene.database.index) == 0:
            reason = "no neighbours: no features, or no mapping images"
            return SearchResult(None, reason, None, timer.timings_ms())
        if self._reranked:
            answer, reason = self._by_matches(frame, view, query, timer)
        else:
            answer, reason = self._by_similarity(frame, query, timer), ""
        return SearchResult(answer, reason, None, timer.timings_ms())

    def _by_similarity(self, frame: Frame, query: Float32, timer: StageTimer) -> PoseEstimate:
        """The answer from the most similar images."""
        wanted = 1 if self._config.interpolation == "nearest" else self._config.interpolation_neighbours
        images, similarity = self._scene.distinct_images(query, wanted)
        timer.lap("retrieve")
        weights = self._weights(query, self._scene.database.index.descriptors[images], similarity)
        return self._answer(frame, images, weights, float(np.clip(similarity[0], 0.0, 1.0)), None)

    def _by_matches(
        self, frame: Frame, view: View, query: Float32, timer: StageTimer
    ) -> tuple[PoseEstimate | None, str]:
        """The answer from keyframes that share enough matches with the query, or None and why there is none."""
        c, database = self._config, self._scene.database
        images, similarity = self._scene.similar_keyframes(query, c.rerank_images)
        timer.lap("retrieve")
        found = matched_images(self._scene, view, database.keyframe[images].tolist(), self._matcher, c)
        timer.lap("rerank")
        most = len(found[0]) if found else 0
        confidence = most / (most + _LEAST_INLIERS)
        if most < _LEAST_INLIERS or confidence < 0.5:
            return None, f"{most} keypoints match the best of {len(found)} retrieved images"
        kept = [m for m in found if len(m) >= _LEAST_INLIERS]
        kept = kept[: 1 if c.interpolation == "nearest" else c.interpolation_neighbours]
        by_number = {int(number): k for k, number in enumerate(database.keyframe[images])}
        rows = np.array([by_number[m.image] for m in kept])
        if c.interpolation == "motion":
            weights = motion_weights(kept, view.half_view)
        else:
            weights = self._weights(query, database.index.descriptors[images[rows]], similarity[rows])
        return self._answer(frame, images[rows], weights, confidence, most), ""

    def _answer(
        self, frame: Frame, images: Index, weights: Array, confidence: float, inliers: int | None
    ) -> PoseEstimate:
        poses = [SE3(T[:3, :3], T[:3, 3]) for T in self._scene.database.T_map_cam[images]]
        mean = weighted_mean(poses, weights)
        if self._config.interpolation == "motion" and len(poses) > 1:
            sigma_rad = _EACH_SIGMA_RAD * float(np.abs(weights).sum())
            depth = self._scene.point_map.median_depth
            covariance = np.diag([sigma_rad**2] * 3 + [(sigma_rad * depth) ** 2] * 3)
        else:
            covariance = self._scatter(mean, poses, np.abs(weights))
        return PoseEstimate(
            frame.stamp_ns, mean, covariance, "retrieval", inliers=inliers, confidence=confidence
        )

    def _weights(self, query: Float32, descriptors: Float32, similarity: Float32) -> Array:
        kind = self._config.interpolation
        if len(descriptors) == 1 or kind in ("nearest", "equal"):
            return np.ones(len(descriptors))
        if kind == "cosine":
            weights = np.maximum(similarity.astype(np.float64), _LEAST_COSINE) ** _COSINE_POWER
            return np.asarray(weights / weights.sum())
        # min |A^T w - q| with sum w = 1, lightly regularised.
        gram = (descriptors @ descriptors.T).astype(np.float64) + _RIDGE * np.eye(len(descriptors))
        bordered = np.block([[gram, np.ones((len(gram), 1))], [np.ones((1, len(gram))), np.zeros((1, 1))]])
        right = np.concatenate([descriptors @ query, [1.0]]).astype(np.float64)
        return np.asarray(np.linalg.solve(bordered, right)[:-1])

    def _scatter(self, mean: SE3, poses: list[SE3], weights: Array) -> Array:
        """(6, 6) scatter of the images' poses, with a floor."""
        depth = self._scene.point_map.median_depth
        floor = np.diag([_LEAST_SIGMA_RAD**2] * 3 + [(_LEAST_SIGMA_RAD * depth) ** 2] * 3)
        differences = np.stack([(mean.inverse() @ T).log() for T in poses])
        return (
            symmetrized(np.einsum("n,ni,nj->ij", weights / weights.sum(), differences, differences)) + floor
        )


def motion_weights(images: Sequence[MatchedImage], half_view: Array) -> Array:
    """Weights of sum 1 for which the images' apparent motions from the query cancel, as small as possible.

    Args:
        images: with at least three matches each.
        half_view: (2,) half size of the query on the plane z = 1.

    Returns:
        (N,) weights, negative ones among them where the query lies beyond the images.
    """
    motion = np.stack([_apparent_motion(m, half_view) for m in images])
    count = np.array([len(m) for m in images], dtype=np.float64)
    # min |sum w g|^2 + sigma^2 sum w^2 / share, subject to sum w = 1: what is known less of weighs less.
    Q = motion @ motion.T + _MOTION_SIGMA**2 * np.diag(count.max() / count)
    weights = np.linalg.solve(Q, np.ones(len(images)))
    return np.asarray(weights / weights.sum())


def _apparent_motion(matched: MatchedImage, half_view: Array) -> Array:
    """(6,) affine motion from query to image; its norm is the RMS displacement over the view, plane z = 1."""
    homogeneous = np.concatenate([matched.query_rays, np.ones((len(matched), 1))], axis=1)
    moved = matched.keyframe_rays - matched.query_rays
    coefficients, *_ = np.linalg.lstsq(homogeneous, moved, rcond=None)
    return np.asarray(
        (coefficients * [[half_view[0] / np.sqrt(3.0)], [half_view[1] / np.sqrt(3.0)], [1.0]]).ravel()
    )
