"""Which frames of a recording to map with, and which pairs of them to match."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.types import Array, Camera, Index, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import mutual_matches
from localizer_ros.geometry.rays import undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.mapping.feature_store import FeatureStore


def posed_frames(source: FrameSource) -> tuple[list[int], Array]:
    """Indices of the frames with poses, and these (N, 4, 4). Raises SourceError when there are fewer than three."""
    posed = [(i, T.matrix()) for i, r in enumerate(source.records) if (T := r.T_map_cam) is not None]
    if len(posed) < 3:
        raise SourceError(
            f"{source.path}: {len(posed)} frames have poses, expected at least 3; `localizer sfm` finds poses"
        )
    return [i for i, _ in posed], np.stack([T for _, T in posed])


def choose_images(T: Array, depth_m: float, max_images: int, min_spacing_deg: float) -> Index:
    """Views spread as evenly as possible: each next one is the furthest from all chosen so far.

    Args:
        T: (N, 4, 4) poses.
        depth_m: median depth of the scene; a move counts as the angle it is seen under from there.
        max_images: at most.
        min_spacing_deg: stop when no view is further than this from a chosen one.

    Returns:
        Ascending indices.
    """
    features = _view_features(T, depth_m)
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(max_images, len(T)):
        k = int(nearest.argmax())
        if nearest[k] < np.radians(min_spacing_deg):
            break
        chosen.append(k)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[k], axis=1))
    return np.sort(np.array(chosen, dtype=np.intp))


def choose_pairs(T: Array, depth_m: float, neighbours: int, max_angle_rad: float) -> list[tuple[int, int]]:
    """Pairs of images to match: the nearest views for certain matches, and further ones for wide angles.

    Args:
        T: (N, 4, 4) poses.
        depth_m: median depth of the scene.
        neighbours: of each image.
        max_angle_rad: between two views.
    """
    features = _view_features(T, depth_m)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(T)):
        distance = np.linalg.norm(features - features[i], axis=1)
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")
        cosine = 0.5 * (np.einsum("nij,ij->n", T[order, :3, :3], T[i, :3, :3]) - 1.0)
        order = order[(cosine > np.cos(max_angle_rad)) & np.isfinite(distance[order])]
        near = neighbours // 2
        for j in [*order[:near], *order[near : near + 3 * (neighbours - near) : 3]]:
            pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)


def _view_features(T: Array, depth_m: float) -> Array:
    turn = T[:, :3, :3].reshape(-1, 9) / np.sqrt(2.0)
    return np.concatenate([T[:, :3, 3] / depth_m, turn], axis=1)


def probing_images(count: int) -> Index:
    """A few of ``count`` frames, evenly spaced, for a first look at the scene."""
    return np.unique(np.linspace(0, count - 1, min(40, count)).round().astype(np.intp))


def probe_depth_m(store: FeatureStore, camera: Camera, picked: list[int], T: Array) -> float:
    """Median depth of what a few images show; twice the spread of positions when that fails."""
    features = [store.features(i, False) for i in picked]
    rays = [undistorted(camera, f.xy_px) for f in features]
    pairs = [
        (a, b, mutual_matches(features[a].descriptors, features[b].descriptors, 0.8))
        for a in range(len(picked))
        for b in (a + 1, a + 2)
        if b < len(picked)
    ]
    image, keypoint, track = tracks_of(pairs, [len(f) for f in features])
    spread = float(np.sqrt(np.mean(np.var(T[:, :3, 3], axis=0))))
    if len(image):
        seen = np.stack([rays[i][k] for i, k in zip(image, keypoint, strict=True)])
        kept, label, X = consistent(T, image, seen, track, 0.02, np.radians(1.5))
        if len(X) >= 20:
            at = T[image[kept]]
            return float(np.median(np.einsum("ni,ni->n", at[:, :3, 2], X[label] - at[:, :3, 3])))
    return max(2.0 * spread, 0.1)
