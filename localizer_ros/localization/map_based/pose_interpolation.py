"""Retrieval alone: the poses of the most similar mapping images, averaged. No points, no relative poses.

With re-ranking, images count by how many keypoints match through one homography. The matches also give weights:
between neighbouring views an image moves nearly linearly with the camera, so the affine combination of images whose
apparent motions from the query cancel has nearly the query's pose, beyond the images as well as between them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3, symmetrized, weighted_mean
from localizer_ros.core.types import Array, ConfigError, Float32, Frame, PoseEstimate
from localizer_ros.features.matchers import open_matcher
from localizer_ros.localization.map_based.reranking import MatchedImage, matched_images
from localizer_ros.localization.map_based.search import StructureLocalizer
from localizer_ros.scene.map_scene import MapScene, View

_LEAST_SIGMA_RAD = np.radians(3.0)
# Images of other places had up to 10 matches through a homography.
_LEAST_INLIERS = 15
# On the plane z = 1: how far an apparent motion is from affine.
_MOTION_SIGMA = 0.01
# Error of an average by motion, an axis, for each unit of sum |w|: it grows as the query lies beyond the images.
_EACH_SIGMA_RAD = np.radians(0.65)


class RetrievalLocalizer(StructureLocalizer):
    """Implements ``GlobalLocalizer`` by pose interpolation.

    Args:
        scene: index and poses; for re-ranking, keypoints of mapping images.
        config: how many images, how averaged.

    Raises:
        ConfigError: interpolation by motion without re-ranking.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        super().__init__(scene, config)
        self._reranked = config.rerank != "never"
        if config.interpolation == "motion" and not self._reranked:
            raise ConfigError(
                "search.interpolation: motion needs the matches of search.rerank, which is never"
            )
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        """See :class:`GlobalLocalizer`; ``prior`` is not used."""
        self.timings_ms, self.reason = {}, ""
        database = self._scene.database
        now = time.perf_counter()
        view = self._scene.view(frame, self._scene.point_map.settings.features.max_keypoints, fine=False)
        now = self._lap("extract", now)
        query = self._scene.global_descriptor(view)
        if not np.any(query) or len(database.index) == 0:
            self.reason = "no neighbours: no features, or no mapping images"
            return None
        if self._reranked:
            return self._by_matches(view, query, now)
        wanted = 1 if self._config.interpolation == "nearest" else self._config.interpolation_neighbours
        images, similarity = self._scene.distinct_images(query, wanted)
        self._lap("retrieve", now)
        weights = self._weights(query, database.index.descriptors[images], similarity)
        return self._answer(frame, images, weights, float(np.clip(similarity[0], 0.0, 1.0)), None)

    def _by_matches(self, view: View, query: Float32, now: float) -> PoseEstimate | None:
        """The answer from images that share enough matches with the query, those with the most first."""
        c, database = self._config, self._scene.database
        images, similarity = self._scene.similar_keyframes(query, c.rerank_images)
        now = self._lap("retrieve", now)
        found = matched_images(self._scene, view, database.keyframe[images].tolist(), self._matcher, c)
        self._lap("rerank", now)
        most = len(found[0]) if found else 0
        confidence = most / (most + _LEAST_INLIERS)
        if most < _LEAST_INLIERS or confidence < c.min_confidence:
            self.reason = f"{most} keypoints match the best of {len(found)} retrieved images"
            return None
        kept = [m for m in found if len(m) >= _LEAST_INLIERS]
        kept = kept[: 1 if c.interpolation == "nearest" else c.interpolation_neighbours]
        by_number = {int(number): k for k, number in enumerate(database.keyframe[images])}
        rows = np.array([by_number[m.image] for m in kept])
        if c.interpolation == "motion":
            weights = motion_weights(kept, view.half_view)
        else:
            weights = self._weights(query, database.index.descriptors[images[rows]], similarity[rows])
        return self._answer(view.frame, images[rows], weights, confidence, most)

    def _answer(
        self, frame: Frame, images: NDArray[np.intp], weights: Array, confidence: float, inliers: int | None
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
            weights = np.maximum(similarity.astype(np.float64), 1e-3) ** 8
            return np.asarray(weights / weights.sum())
        # min |A^T w - q| with sum w = 1, lightly regularised: neighbours in a drive are nearly the same vector.
        gram = (descriptors @ descriptors.T).astype(np.float64) + 0.05 * np.eye(len(descriptors))
        bordered = np.block([[gram, np.ones((len(gram), 1))], [np.ones((1, len(gram))), np.zeros((1, 1))]])
        right = np.concatenate([descriptors @ query, [1.0]]).astype(np.float64)
        return np.asarray(np.linalg.solve(bordered, right)[:-1])

    def _scatter(self, mean: SE3, poses: list[SE3], weights: Array) -> Array:
        """Scatter of the images' poses; an image is rarely exactly where another one was, hence a floor."""
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
