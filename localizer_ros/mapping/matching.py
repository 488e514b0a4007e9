"""Matches between keyframes, and those of them that agree with the given poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import Array, Index, Mask
from localizer_ros.features.matchers import open_matcher
from localizer_ros.geometry.epipolar import epipolar_distances, fundamental_matrix
from localizer_ros.mapping.feature_store import FeatureStore

# A pair of images, by their numbers, and (M, 2) keypoints of the one and the other.
PairMatches = tuple[int, int, Index]

# A move shorter than this share of the depth has no epipolar line worth the name: the pose's rotation alone says where
# a match must be, this many times as loosely, as depth moves it too.
_SHORTEST_BASELINE, _LOOSER_WITHOUT = 0.01, 3.0


def match_keyframes(
    store: FeatureStore,
    images: list[int],
    pairs: list[tuple[int, int]],
    config: StructureConfig,
    path: Path,
    progress: Progress,
) -> list[PairMatches]:
    """Matches of pairs of keyframes; read from ``path`` where an earlier run has left the same pairs.

    Args:
        store: has the fine features of all of them.
        images: K frames of the recording.
        pairs: of numbers below K, ascending.
        config: which matcher.
        path: an .npz file; what is found is left there.
        progress: told as it goes.
    """
    if path.is_file():
        with np.load(path, allow_pickle=False) as data:
            if np.array_equal(data["images"], images) and np.array_equal(data["pairs"], pairs):
                parts = np.split(data["matches"].astype(np.intp), np.cumsum(data["counts"])[:-1])
                return [(a, b, m) for (a, b), m in zip(pairs, parts, strict=True)]
    found: list[PairMatches] = []
    card = Path(config.matcher.card) if config.matcher.card else None
    matcher = open_matcher(config.matcher.kind, config.keyframes.ratio, card)
    current, first = -1, store.side(images[0])
    for n, (a, b) in enumerate(pairs):
        if a != current:
            current, first = a, store.side(images[a])
        found.append((a, b, matcher.match(first, store.side(images[b]))))
        if n % 20 == 0 or n + 1 == len(pairs):
            progress("matches", n + 1, len(pairs))
    # Renamed when complete: a killed run leaves no half file to trip over.
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        images=np.array(images),
        pairs=np.array(pairs),
        counts=np.array([len(m) for _, _, m in found]),
        matches=np.concatenate([np.zeros((0, 2), np.int32), *(m.astype(np.int32) for _, _, m in found)]),
    )
    partial.replace(path)
    return found


def on_epipolar_lines(
    xy_a: Array, xy_b: Array, T_b_a: Array, K: Array, depth_m: float, most_px: float
) -> Mask:
    """(M,) bool: which matches lie within ``most_px`` of their epipolar lines by a given pose.

    Args:
        xy_a: (M, 2) pixels of the ideal image of one camera.
        xy_b: (M, 2) those of the other.
        T_b_a: (4, 4) pose of the one in the other.
        K: (3, 3) calibration of both.
        depth_m: median depth of the scene.
        most_px: root mean square distance from both lines.
    """
    if np.linalg.norm(T_b_a[:3, 3]) < _SHORTEST_BASELINE * depth_m:
        xa = np.concatenate([xy_a, np.ones((len(xy_a), 1))], axis=1)
        turned = xa @ (K @ T_b_a[:3, :3] @ np.linalg.inv(K)).T
        shift = np.linalg.norm(turned[:, :2] / turned[:, 2:] - xy_b, axis=1)
        return np.asarray(shift < _LOOSER_WITHOUT * most_px)
    return np.asarray(epipolar_distances(fundamental_matrix(T_b_a, K), xy_a, xy_b) < most_px)
