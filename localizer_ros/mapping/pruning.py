"""Which observations a map keeps where it may not hold all of them."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.types import Index, Mask

# Views of a point are thinned out as long as more than this many of them stay; then points go.
_THINNED_TO = 3
# A small place has its full size with so many keyframes; what is longer may be larger.
_FULL_SIZE_KEYFRAMES = 150


def budget_bytes(max_megabytes: float, keyframes: int) -> int:
    """Bytes that a map may have: so many megabytes, and of a long drive so many for each 150 keyframes."""
    return int(max_megabytes * 1e6 * max(1.0, keyframes / _FULL_SIZE_KEYFRAMES))


def observations_within(budget: int, image: Index, point: Index, points: int) -> Mask:
    """(N,) true for the observations to keep, at most ``budget`` of them.

    First repeated views of a point go, then the points seen least often.

    Args:
        budget: how many observations the map may hold.
        image: (N,) of each observation, numbered in order of time.
        point: (N,) of each observation.
        points: how many points there are.
    """
    keep = np.ones(len(point), dtype=bool)
    if len(point) <= budget:
        return keep
    length = np.bincount(point, minlength=points)
    order = np.lexsort((image, point))
    rank = np.empty(len(order), dtype=np.intp)
    first = np.cumsum(length) - length
    rank[order] = np.arange(len(order)) - first[point[order]]
    most = int(length.max())
    for most in range(int(length.max()), _THINNED_TO, -1):
        if int(np.minimum(length, most).sum()) <= budget:
            break
    # Of images in order of time, evenly spaced ones.
    slot = rank * most // np.maximum(length[point], 1)
    before = (rank - 1) * most // np.maximum(length[point], 1)
    keep = (length[point] <= most) | (slot != before)
    if int(keep.sum()) > budget:
        by_length = np.argsort(-np.minimum(length, most), kind="stable")
        fits = np.cumsum(np.minimum(length, most)[by_length]) <= budget
        keep &= np.isin(point, by_length[fits])
    return np.asarray(keep)
