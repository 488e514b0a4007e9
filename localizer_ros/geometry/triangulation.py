"""From matches between images with known poses to points: tracks, and where their rays meet.

Observations are three parallel arrays: ``image`` (N,), ``keypoint`` or ``rays`` (N, 2), and ``point`` (N,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from localizer_ros.core.types import Array, Index

NEAREST_M = 0.05
"""A point nearer than this to a camera is not triangulated, metres: no lens focuses there, whatever the depth."""


def tracks_of(
    pairs: Sequence[tuple[int, int, Index]], keypoints: Sequence[int]
) -> tuple[Index, Index, Index]:
    """Connected components of matched keypoints.

    Args:
        pairs: (image a, image b, (M, 2) keypoints of a and b).
        keypoints: number of keypoints of every image.

    Returns:
        image (N,), keypoint (N,) and track (N,) of every keypoint in a track. Where a track has several keypoints of
        one image (a repeated texture), none of those is used.
    """
    offset = np.concatenate([[0], np.cumsum(keypoints)])
    edges = [
        (offset[a] + matches[:, 0], offset[b] + matches[:, 1]) for a, b, matches in pairs if len(matches)
    ]
    empty = np.zeros(0, dtype=np.intp)
    if not edges:
        return empty, empty, empty
    rows, columns = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = scipy.sparse.coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(offset[-1],) * 2)
    label = np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1], dtype=np.intp)
    node = np.nonzero(np.bincount(label)[label] >= 2)[0]
    image = np.searchsorted(offset, node, side="right") - 1
    track = label[node]
    _, inverse, count = np.unique(
        track.astype(np.int64) * len(keypoints) + image, return_inverse=True, return_counts=True
    )
    once = count[inverse] == 1
    image, node, track = image[once], node[once], track[once]
    _, track = np.unique(track, return_inverse=True)
    return image, node - offset[image], track


def triangulated(T: Array, image: Index, rays: Array, point: Index, count: int) -> Array:
    """(P, 3) points nearest to their rays, in a near-optimal weighting; NaN where rays are parallel.

    Args:
        T: (I, 4, 4) camera poses.
        image: (N,) of each observation.
        rays: (N, 2) on the plane z = 1.
        point: (N,) of each observation.
        count: P.
    """
    R, centre = T[image, :3, :3], T[image, :3, 3]
    direction = np.einsum("nij,nj->ni", R, np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    X = np.full((count, 3), np.nan)
    weight = np.ones(len(rays))
    for _ in range(3):
        A = np.zeros((count, 3, 3))
        b = np.zeros((count, 3))
        np.add.at(A, point, across * weight[:, None, None])
        np.add.at(b, point, np.einsum("nij,nj,n->ni", across, centre, weight))
        values = np.linalg.eigvalsh(A)
        solvable = values[:, 0] > 1e-8 * values[:, 2]
        X[solvable] = np.linalg.solve(A[solvable], b[solvable][:, :, None])[:, :, 0]
        # A pixel weighs as the inverse distance: what counts is the angle, not the metres beside the ray.
        distance = np.linalg.norm(X[point] - centre, axis=1)
        weight = np.where(np.isfinite(distance), 1.0 / np.maximum(distance, NEAREST_M) ** 2, 0.0)
    return X


def reprojection_errors(T: Array, image: Index, rays: Array, X: Array) -> Array:
    """(N,) distance of each observation's ray from its point on the plane z = 1; infinite behind the camera.

    Args:
        T: (I, 4, 4) camera poses.
        image: (N,) of each observation.
        rays: (N, 2).
        X: (N, 3) the point of each observation.
    """
    p = np.einsum("nji,nj->ni", T[image, :3, :3], X - T[image, :3, 3])
    with np.errstate(invalid="ignore"):
        ahead = p[:, 2] > NEAREST_M
        error = np.linalg.norm(p[:, :2] / np.where(ahead, p[:, 2], 1.0)[:, None] - rays, axis=1)
        return np.asarray(np.where(ahead & np.isfinite(error), error, np.inf))


def ray_angles(T: Array, image: Index, X: Array, point: Index) -> Array:
    """(P,) twice the largest angle between a ray of a point and the mean of its rays, radians."""
    ray = X[point] - T[image, :3, 3]
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12)
    mean = np.zeros_like(X)
    np.add.at(mean, point, ray)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    angle = np.arccos(np.clip(np.einsum("ni,ni->n", ray, mean[point]), -1.0, 1.0))
    largest = np.zeros(len(X))
    np.maximum.at(largest, point, angle)
    return 2.0 * largest


def consistent(
    T: Array, image: Index, rays: Array, point: Index, max_error: float, min_angle_rad: float, rounds: int = 3
) -> tuple[Index, Index, Array]:
    """Observations that agree with their triangulated point.

    Args:
        T: (I, 4, 4) camera poses.
        image, rays, point: the observations.
        max_error: on the plane z = 1.
        min_angle_rad: between the rays of a point.
        rounds: of triangulating and dropping.

    Returns:
        (M,) indices of the observations kept, (M,) their points renumbered without gaps, (P, 3) the points.
    """
    kept = np.arange(len(image))
    label = point.copy()
    X = np.zeros((0, 3))
    for _ in range(rounds):
        if len(kept) == 0:
            return kept, label, np.zeros((0, 3))
        count = int(label.max()) + 1
        X = triangulated(T, image[kept], rays[kept], label, count)
        good = reprojection_errors(T, image[kept], rays[kept], X[label]) < max_error
        good &= np.bincount(label[good], minlength=count)[label] >= 2
        kept = kept[good]
        _, label = np.unique(label[good], return_inverse=True)
    if len(kept) == 0:
        return kept, label, np.zeros((0, 3))
    count = int(label.max()) + 1
    X = triangulated(T, image[kept], rays[kept], label, count)
    error = reprojection_errors(T, image[kept], rays[kept], X[label])
    wide = ray_angles(T, image[kept], np.nan_to_num(X), label) >= min_angle_rad
    good = wide[label] & (error < max_error)
    good &= np.bincount(label[good], minlength=count)[label] >= 2
    kept = kept[good]
    used, label = np.unique(label[good], return_inverse=True)
    return kept, label, X[used]
