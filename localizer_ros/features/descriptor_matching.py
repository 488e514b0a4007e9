"""Matches between two sets of descriptors, and between descriptors and the points that others are of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Float32, Index, Mask

# Largest distance of the unit descriptors of a match.
_MAX_DISTANCE = 0.9
# Observations of one point that are stepped over at most on the way to the nearest one of another point.
_STEPS = 12
# Descriptors that are compared with all others at one time: their similarities to 10 000 others are 5 MB. All at once
# took twice as long, most of it to have the memory of a hundred.
_ROWS = 128


def mutual_matches(a: Float32, b: Float32, ratio: float, max_distance: float = _MAX_DISTANCE) -> Index:
    """Pairs that are each other's nearest neighbours and clearly nearer than the second nearest.

    Args:
        a: (N, D) unit vectors.
        b: (M, D) unit vectors.
        ratio: largest distance to the nearest over the distance to the second nearest of a's descriptor.
        max_distance: largest Euclidean distance.

    Returns:
        (K, 2) indices into a and b.
    """
    if len(a) == 0 or len(b) < 2:
        return np.zeros((0, 2), dtype=np.intp)
    similarity = a @ b.T
    rows = np.arange(len(a))
    best = similarity.argmax(axis=1)
    first = similarity[rows, best]
    # A pair is mutual when the row's best value is also the best of its column; the maximum over columns is
    # several times faster than a second argmax along the strided axis.
    mutual = similarity.max(axis=0)[best] <= first
    similarity[rows, best] = -2.0
    second = similarity.max(axis=1)
    keep = mutual & _clear(first, second, ratio) & (2.0 - 2.0 * first < max_distance**2)
    return np.stack([rows[keep], best[keep]], axis=1)


def point_matches(
    query: Float32,
    database: Float32,
    point_of: NDArray[np.int32],
    ratio: float,
    max_distance: float = _MAX_DISTANCE,
) -> tuple[Index, Index]:
    """Each query descriptor's point: nearest observation, clearly nearer than any observation of another point.

    Args:
        query: (N, D) unit vectors.
        database: (M, D) unit vectors of observations.
        point_of: (M,) the point that each observation is of.
        ratio: largest distance over that to the nearest observation of another point.
        max_distance: largest Euclidean distance.

    Returns:
        (K,) indices into ``query`` and (K,) points, at most one match a point, the most alike.
    """
    nothing = np.zeros(0, dtype=np.intp)
    if len(query) == 0 or len(database) < 2:
        return nothing, nothing
    starts = range(0, len(query), _ROWS)
    found = list(
        _workers(max(1, cv2.getNumThreads())).map(
            lambda at: _nearest(query[at : at + _ROWS], database, point_of, max_distance), starts
        )
    )
    near = np.concatenate([at + each.row for at, each in zip(starts, found, strict=True)])
    first, second, point = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("first", "second", "point")
    )
    keep = np.nonzero(_clear(first, second, ratio))[0]
    order = keep[np.argsort(-first[keep], kind="stable")]
    _, unique = np.unique(point[order], return_index=True)
    chosen = order[np.sort(unique)]
    return near[chosen].astype(np.intp), point[chosen].astype(np.intp)


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Threads for comparisons. They stay: to start two takes as long as a tenth of a search's comparisons."""
    return ThreadPoolExecutor(threads, thread_name_prefix="descriptors")


@dataclass(frozen=True, slots=True, eq=False)
class _Nearest:
    """What is nearest to some descriptors.

    Attributes:
        row: (K,) those that have anything near them.
        point: (K,) the point of the nearest observation.
        first: (K,) its similarity.
        second: (K,) that of the nearest observation of another point.
    """

    row: Index
    point: NDArray[np.int32]
    first: Float32
    second: Float32


def _nearest(query: Float32, database: Float32, point_of: NDArray[np.int32], max_distance: float) -> _Nearest:
    """The nearest observations of so few descriptors that all similarities stay in the cache."""
    similarity = query @ database.T
    best = similarity.argmax(axis=1)
    first = similarity[np.arange(len(query)), best]
    near = np.nonzero(2.0 - 2.0 * first < max_distance**2)[0]
    best, first = best[near], first[near]
    point = point_of[best]
    second = np.full(len(near), -1.0, dtype=np.float32)
    # Observations of the same point are the next nearest ones: step over them.
    open_rows, candidate = np.arange(len(near)), best
    for _ in range(_STEPS):
        similarity[near[open_rows], candidate] = -2.0
        candidate = similarity[near[open_rows]].argmax(axis=1)
        second[open_rows] = similarity[near[open_rows], candidate]
        same = point_of[candidate] == point[open_rows]
        if not same.any():
            break
        open_rows, candidate = open_rows[same], candidate[same]
    return _Nearest(near, point, first, second)


def _clear(first: Float32, second: Float32, ratio: float) -> Mask:
    return np.asarray((2.0 - 2.0 * first) < ratio**2 * (2.0 - 2.0 * second))
