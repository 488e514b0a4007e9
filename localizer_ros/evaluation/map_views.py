"""How a map is looked at: which way is up, what is worth showing, and where cameras look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array

# Mapping cameras stand before points: darker than in reports, which have none.
MAPPED_CAMERA = "#5b8f86"


@dataclass(frozen=True)
class Up:
    """Map axis drawn upwards.

    Attributes:
        axis: 0, 1 or 2.
        flipped: its negative direction is up in the world.
    """

    axis: int
    flipped: bool = False


@dataclass(frozen=True)
class MapView:
    """How a map is looked at.

    Attributes:
        title: in words.
        right: map axis drawn to the right, 0, 1 or 2.
        up: map axis drawn upwards.
    """

    title: str
    right: int
    up: Up


def map_views(poses: Sequence[SE3]) -> tuple[MapView, MapView]:
    """The view from above and one from the side.

    Which way is up is not written in a map; cameras are mostly held upright, so it is the map axis closest to
    the mean of "up in the image".
    """
    up = np.mean([-T.R[:, 1] for T in poses], axis=0) if poses else np.array([0.0, 0.0, 1.0])
    vertical = int(np.argmax(np.abs(up)))
    below = bool(up[vertical] < 0.0)
    # Seen from above neither axis is mirrored: right x upwards = up.
    right, forward = (vertical + 1) % 3, (vertical + 2) % 3
    if below:
        right, forward = forward, right
    extent = np.ptp(np.stack([T.t for T in poses]), axis=0) if poses else np.ones(3)
    wide = max((right, forward), key=lambda axis: float(extent[axis]))
    return MapView("from above", right, Up(forward)), MapView("from the side", wide, Up(vertical, below))


def limits(poses: Sequence[SE3], points: Array | None) -> tuple[Array, Array]:
    """(3,) lower and (3,) upper corner of what is worth showing, with a margin: all poses, and points but the
    outliers of a map, which would shrink everything else.
    """
    positions = np.stack([T.t for T in poses])
    low, high = positions.min(axis=0), positions.max(axis=0)
    if points is not None and len(points):
        low = np.minimum(low, np.percentile(points, 1.0, axis=0))
        high = np.maximum(high, np.percentile(points, 99.0, axis=0))
    margin = 0.04 * float(np.max(high - low)) + 0.05
    return low - margin, high + margin


def wedges(poses: Sequence[SE3], size_m: float) -> Array:
    """(N, 4, 3) closed lines: where cameras are and the horizontal wedge they look into."""
    corners = size_m * np.array([[0.0, 0.0, 0.0], [-0.5, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.0]])
    return np.stack([corners @ T.R.T + T.t for T in poses])
