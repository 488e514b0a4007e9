"""What of a map was looked for in a frame, for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.floating[Any]]
NO_POINTS: Pixels = np.zeros((0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class SeenPoints:
    """Pixels of a frame, in its own resolution.

    Attributes:
        keypoints_px: (N, 2) all that were detected; none where points were followed from the frame before.
        matched_px: (K, 2) those that were matched with points of the map.
        inliers: (K,) bool, which of these the pose explains; all False without a pose.
        projected_px: (K, 2) where the pose puts those points of the map; empty without a pose.
    """

    keypoints_px: Pixels
    matched_px: Pixels
    inliers: NDArray[np.bool_]
    projected_px: Pixels


def without_pose(keypoints_px: Pixels, matched_px: Pixels) -> SeenPoints:
    """Matches that no pose explains."""
    return SeenPoints(keypoints_px, matched_px, np.zeros(len(matched_px), dtype=bool), NO_POINTS)
