"""Matching where a predicted pose says a point must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Float32, Index
from localizer_ros.scene.point_map import PointMap


@dataclass(frozen=True, slots=True, eq=False)
class GuidedMatches:
    """Matches around predicted points.

    Attributes:
        keypoint: (K,) indices of the query's keypoints.
        point: (K,) indices of map points.
        offset_px: (K, 2) keypoint minus prediction.
        visible: number of points predicted to lie in the image.
    """

    keypoint: Index
    point: Index
    offset_px: Array
    visible: int


def guided_matches(
    point_map: PointMap,
    T_map_refined: SE3,
    images: Index,
    rays: Array,
    tree: cKDTree,
    descriptors: Float32,
    half_view: Array,
    focal_px: float,
    radius_px: float,
    max_distance: float,
) -> GuidedMatches:
    """Match the points that some mapping images saw, near where the pose puts them.

    Args:
        point_map: the map.
        T_map_refined: predicted pose.
        images: mapping images whose points are looked for, the nearest view first.
        rays: (N, 2) keypoints on the plane z = 1.
        tree: search tree of ``rays``.
        descriptors: (N, D) of the keypoints.
        half_view: (2,) half size of the image on that plane.
        focal_px: pixels per unit on that plane.
        radius_px: how far a keypoint may be from the prediction.
        max_distance: largest distance of descriptors.

    Returns:
        Pairs that are each other's best within the radius.
    """
    nothing = np.zeros(0, dtype=np.intp)
    observations = point_map.observations_of(images)
    if len(observations) == 0 or len(rays) == 0:
        return GuidedMatches(nothing, nothing, np.zeros((0, 2)), 0)
    # A point is compared as the first of the images saw it, the one with the nearest view.
    points, first = np.unique(point_map.observation_point[observations], return_index=True)
    observations = observations[first]
    p = (point_map.points[points] - T_map_refined.t) @ T_map_refined.R
    ahead = p[:, 2] > 1e-3
    predicted = p[:, :2] / np.where(ahead, p[:, 2], 1.0)[:, None]
    seen = ahead & np.all(np.abs(predicted) < half_view, axis=1)
    near_image = ahead & np.all(np.abs(predicted) < half_view + radius_px / focal_px, axis=1)
    candidates = np.nonzero(near_image)[0]
    if len(candidates) == 0:
        return GuidedMatches(nothing, nothing, np.zeros((0, 2)), 0)
    around = cKDTree(predicted[candidates])
    near = around.sparse_distance_matrix(tree, radius_px / focal_px, output_type="ndarray")
    visible = int(seen.sum())
    if len(near) == 0:
        return GuidedMatches(nothing, nothing, np.zeros((0, 2)), visible)
    slot, keypoint = candidates[near["i"]], near["j"].astype(np.intp)
    similarity = np.einsum("kd,kd->k", point_map.unit_descriptors[observations[slot]], descriptors[keypoint])
    alike = similarity > 1.0 - 0.5 * max_distance**2
    slot, keypoint, similarity = slot[alike], keypoint[alike], similarity[alike]
    order = np.argsort(-similarity, kind="stable")
    keypoint, slot = keypoint[order], slot[order]
    _, best_of_keypoint = np.unique(keypoint, return_index=True)
    _, best_of_point = np.unique(slot, return_index=True)
    chosen = np.intersect1d(best_of_keypoint, best_of_point)
    keypoint, slot = keypoint[chosen], slot[chosen]
    return GuidedMatches(
        keypoint, points[slot].astype(np.intp), (rays[keypoint] - predicted[slot]) * focal_px, visible
    )
