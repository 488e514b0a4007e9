"""Corners: where there are none yet, and not where something moves by itself."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.types import Camera, Float32, Frame
from localizer_ros.localization.visual_odometry.corners import View, new_corners

CAMERA = Camera.pinhole(320, 240, 250.0, 250.0, 159.5, 119.5)
NONE = np.zeros((0, 2), np.float32)


def distance_px(a: Float32, b: Float32) -> np.ndarray:
    return np.asarray(np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1))


def test_no_corner_is_found_where_others_moved_strangely(rng: np.random.Generator) -> None:
    view = View.of(Frame(1, rng.integers(0, 255, (240, 320), np.uint8), CAMERA))
    everywhere = new_corners(view, NONE, 200)
    strange = everywhere[:20]
    found = new_corners(view, NONE, 200, strange)
    taken = new_corners(view, strange, 200)
    assert len(found) > 50
    # Further off than from corners that are merely there.
    assert distance_px(found, strange).min() > 1.3 * distance_px(taken, strange).min()
