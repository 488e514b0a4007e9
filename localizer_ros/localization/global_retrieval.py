"""Retrieval alone: the poses of the most similar mapping images, averaged. No geometry, no points."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config import SearchConfig
from localizer_ros.core.se3 import SE3, symmetrized, weighted_mean
from localizer_ros.core.types import Array, Frame, PoseEstimate
from localizer_ros.localization.features import Float32
from localizer_ros.localization.structure_scene import StructureScene

# Images closer to each other than this (turn, or move of like effect) are one opinion, not several.
_ONE_OPINION_RAD = np.radians(5.0)
_LEAST_SIGMA_RAD = np.radians(3.0)


class RetrievalLocalizer:
    """Implements ``GlobalLocalizer`` by pose interpolation.

    Args:
        scene: index and poses.
        config: how many images, how averaged.

    Attributes:
        reason: why the last frame had no answer; empty when it had one.
        timings_ms: of the last frame.
    """

    def __init__(self, scene: StructureScene, config: SearchConfig) -> None:
        self._scene, self._config = scene, config
        self.reason = ""
        self.timings_ms: dict[str, float] = {}

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        """See :class:`GlobalLocalizer`; ``prior`` is not used."""
        c, database = self._config, self._scene.database
        started = time.perf_counter()
        view = self._scene.view(frame, self._scene.structure.settings.features.max_keypoints, fine=False)
        extracted = time.perf_counter()
        query = database.describe(view.features.descriptors)
        wanted = 1 if c.interpolation == "nearest" else c.interpolation_neighbours
        images, similarity = distinct_images(self._scene, query, wanted)
        self.timings_ms = {
            "extract": (extracted - started) * 1e3,
            "retrieve": (time.perf_counter() - extracted) * 1e3,
        }
        if len(images) == 0 or not np.any(query):
            self.reason = "no neighbours: no features, or no mapping images"
            return None
        self.reason = ""
        weights = self._weights(query, database.index.descriptors[images], similarity)
        poses = [SE3(T[:3, :3], T[:3, 3]) for T in database.T_map_cam[images]]
        mean = weighted_mean(poses, weights)
        return PoseEstimate(
            frame.stamp_ns,
            mean,
            self._scatter(mean, poses, np.abs(weights)),
            "retrieval",
            confidence=float(np.clip(similarity[0], 0.0, 1.0)),
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
        depth = self._scene.structure.median_depth
        floor = np.diag([_LEAST_SIGMA_RAD**2] * 3 + [(_LEAST_SIGMA_RAD * depth) ** 2] * 3)
        differences = np.stack([(mean.inverse() @ T).log() for T in poses])
        return (
            symmetrized(np.einsum("n,ni,nj->ij", weights / weights.sum(), differences, differences)) + floor
        )


def distinct_images(
    scene: StructureScene, query: Float32, wanted: int, mapped_only: bool = False
) -> tuple[NDArray[np.intp], Float32]:
    """The most similar images that are not nearly the same view.

    Args:
        scene: index and poses.
        query: (G,) global descriptor.
        wanted: at most.
        mapped_only: only images that carry points.

    Returns:
        Indices in the database and similarities, most similar first.
    """
    database, depth = scene.database, scene.structure.median_depth
    found, similarity = database.index.search(query, min(len(database.index), 20 * wanted))
    chosen: list[int] = []
    for n, image in enumerate(found):
        if mapped_only and database.mapped[image] < 0:
            continue
        T = database.T_map_cam[image]
        others = database.T_map_cam[found[chosen]]
        move = np.linalg.norm(others[:, :3, 3] - T[:3, 3], axis=1) / depth
        cosine = 0.5 * (np.einsum("nij,ij->n", others[:, :3, :3], T[:3, :3]) - 1.0)
        if np.all(np.hypot(move, np.arccos(np.clip(cosine, -1.0, 1.0))) > _ONE_OPINION_RAD):
            chosen.append(n)
            if len(chosen) == wanted:
                break
    return found[chosen], similarity[chosen]
