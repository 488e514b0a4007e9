"""Matching where a predicted pose says a point must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Index
from localizer_ros.scene.map_scene import View
from localizer_ros.scene.point_map import PointMap

GUIDED_MAX_DISTANCE = 0.75
"""Largest distance of the unit descriptors of a guided match; there is no ratio test, as the window has done most of
the choosing."""

# A window of this share of half the image holds so many pairs that comparing all of them at once is faster.
_DENSE_OF_VIEW = 0.15
# A point must lie ahead of the camera by this much to be projected, metres; it only keeps from dividing by zero.
_AHEAD_M = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class GuidedMatches:
    """Matches around predicted points.

    Attributes:
        keypoint: (K,) indices of the query's keypoints.
        point: (K,) indices of map points.
        offset: (K, 2) keypoint minus prediction, on the plane z = 1.
        visible: number of points predicted to lie in the image.
    """

    keypoint: Index
    point: Index
    offset: Array
    visible: int

    @staticmethod
    def none(visible: int = 0) -> GuidedMatches:
        """No match, of so many visible points."""
        nothing = np.zeros(0, dtype=np.intp)
        return GuidedMatches(nothing, nothing, np.zeros((0, 2)), visible)


@dataclass(frozen=True, slots=True, eq=False)
class KnownPoints:
    """Points to look for, as a keyframe saw them.

    Attributes:
        points: (P,) indices of map points.
        observations: (P,) the observation of each that a keypoint is compared with.
    """

    points: Index
    observations: Index


def points_of(point_map: PointMap, keyframes: Index) -> KnownPoints:
    """The points that some keyframes saw, each as the first of these saw it.

    Args:
        point_map: the map.
        keyframes: the nearest view first.
    """
    observations = point_map.observations_of(keyframes)
    points, first = np.unique(point_map.observation_point[observations], return_index=True)
    return KnownPoints(points.astype(np.intp), observations[first])


def guided_matches(
    point_map: PointMap,
    known: KnownPoints,
    T_map_refined: SE3,
    view: View,
    radius: float,
    max_distance: float = GUIDED_MAX_DISTANCE,
) -> GuidedMatches:
    """Pairs that are each other's best within a radius: points and the keypoints near where a pose puts them.

    Args:
        point_map: the map.
        known: the points that are looked for.
        T_map_refined: predicted pose.
        view: the query.
        radius: how far a keypoint may be from the prediction, on the plane z = 1.
        max_distance: largest distance of descriptors.
    """
    points, observations = known.points, known.observations
    if len(points) == 0 or len(view.rays) == 0:
        return GuidedMatches.none()
    p = (point_map.points[points] - T_map_refined.t) @ T_map_refined.R
    ahead = p[:, 2] > _AHEAD_M
    predicted = p[:, :2] / np.where(ahead, p[:, 2], 1.0)[:, None]
    visible = int((ahead & np.all(np.abs(predicted) < view.half_view, axis=1)).sum())
    near_image = ahead & np.all(np.abs(predicted) < view.half_view + radius, axis=1)
    candidates = np.nonzero(near_image)[0]
    if len(candidates) == 0:
        return GuidedMatches.none()
    described = observations[candidates]
    if radius > _DENSE_OF_VIEW * view.half_view.max():
        keypoint, slot = _dense_best(point_map, described, predicted[candidates], view, radius, max_distance)
    else:
        keypoint, slot = _sparse_best(point_map, described, predicted[candidates], view, radius, max_distance)
    slot = candidates[slot]
    return GuidedMatches(keypoint, points[slot], view.rays[keypoint] - predicted[slot], visible)


def _sparse_best(
    point_map: PointMap, observations: Index, predicted: Array, view: View, radius: float, max_distance: float
) -> tuple[Index, Index]:
    """Keypoints and the rows of ``observations`` that are each other's best, by a list of the pairs in the window."""
    near = cKDTree(predicted).sparse_distance_matrix(view.tree, radius, output_type="ndarray")
    slot, keypoint = near["i"].astype(np.intp), near["j"].astype(np.intp)
    similarity = np.einsum(
        "kd,kd->k",
        point_map.unit_descriptors(observations[slot]),
        view.features.descriptors[keypoint],
    )
    alike = similarity > _least_similarity(max_distance)
    return _mutual_best(keypoint[alike], slot[alike], similarity[alike])


def _dense_best(
    point_map: PointMap, observations: Index, predicted: Array, view: View, radius: float, max_distance: float
) -> tuple[Index, Index]:
    """The same by all similarities, of which those outside the window do not count."""
    similarity = point_map.unit_descriptors(observations) @ view.features.descriptors.T
    x, y = (np.subtract.outer(predicted[:, k], view.rays[:, k]).astype(np.float32) for k in (0, 1))
    similarity[x * x + y * y > radius**2] = -1.0
    keypoint = similarity.argmax(axis=1)
    slot = np.nonzero(similarity.argmax(axis=0)[keypoint] == np.arange(len(keypoint)))[0]
    slot = slot[similarity[slot, keypoint[slot]] > _least_similarity(max_distance)]
    return keypoint[slot], slot


def _least_similarity(max_distance: float) -> float:
    return 1.0 - 0.5 * max_distance**2


def _mutual_best(keypoint: Index, slot: Index, similarity: Array) -> tuple[Index, Index]:
    """The pairs that are the most similar ones of both their keypoint and their slot."""
    if len(keypoint) == 0:
        return keypoint, slot
    # The last value written to a place stays: of pairs from the least to the most similar, the best one of each.
    order = np.argsort(-similarity, kind="stable")[::-1]
    keypoint, slot, rank = keypoint[order], slot[order], np.arange(len(order))
    best_of_keypoint = np.zeros(keypoint.max() + 1, dtype=np.intp)
    best_of_slot = np.zeros(slot.max() + 1, dtype=np.intp)
    best_of_keypoint[keypoint], best_of_slot[slot] = rank, rank
    chosen = np.nonzero((best_of_keypoint[keypoint] == rank) & (best_of_slot[slot] == rank))[0][::-1]
    return keypoint[chosen], slot[chosen]
