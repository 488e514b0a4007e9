"""Posed images of noise for the tests of training."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.training.data import PosedImages
from localizer_ros.training.virtual_views import SceneDepth

NOTHING = AugmentationConfig(colour=0.0, blur_px=0.0, noise=0.0, virtual_rotation_deg=0.0)
SMALL = Camera.pinhole(64, 48, 50.0, 50.0, 31.5, 23.5)


def some_data(count: int, rng: np.random.Generator, per_sequence: int = 10) -> PosedImages:
    """Sequences of images of 64 x 48 px at random poses, without depth."""
    return PosedImages(
        rng.integers(0, 256, (count, 48, 64, 3), np.uint8),
        tuple(SE3.exp(rng.normal(0, 0.5, 6)) for _ in range(count)),
        np.arange(count) // per_sequence,
        tuple(str(i) for i in range(count)),
        SMALL,
    )


def data_with_depth(rng: np.random.Generator, count: int = 12) -> PosedImages:
    """Two sequences of images of 96 x 64 px, everything 2 m away."""
    depth = SceneDepth(
        np.full((count, 16, 24), 0.5, np.float16), np.diag([70.0, 70.0, 1.0]), SE3.identity(), 2.0
    )
    return PosedImages(
        rng.integers(0, 256, (count, 64, 96, 3), np.uint8),
        tuple(SE3.exp(rng.normal(0, 0.5, 6)) for _ in range(count)),
        np.arange(count) // 6,
        tuple(str(i) for i in range(count)),
        Camera.pinhole(96, 64, 70.0, 70.0, 47.5, 31.5),
        depth,
    )
