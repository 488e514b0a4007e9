"""What may be wrong with pixels. Knows nothing of ROS."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from localizer_ros.core.types import UInt8
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig

# ``change(image, value, number)``: the image, how much, and a number that differs from frame to frame.
Change = Callable[[UInt8, float, int], UInt8]


def _covered(image: UInt8, share: float, number: int) -> UInt8:
    covered = image.copy()
    covered[:, : round(share * image.shape[1])] = 8
    return covered


def _brightness(image: UInt8, factor: float, number: int) -> UInt8:
    scaled = image.astype(np.float32) * factor
    if factor < 1.0:
        # What a sensor reads in the dark is noise as well.
        scaled += np.random.default_rng(number).normal(0.0, 2.0, image.shape).astype(np.float32)
    return np.asarray(np.clip(scaled, 0.0, 255.0), np.uint8)


def _blur(image: UInt8, share: float, number: int) -> UInt8:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), share * image.shape[1]), np.uint8)


def _noise(image: UInt8, value: float, number: int) -> UInt8:
    return np.random.default_rng(number).integers(0, 256, image.shape).astype(np.uint8)


def _size(image: UInt8, factor: float, number: int) -> UInt8:
    height, width = image.shape[:2]
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class OtherPlace:
    """Images of a place that the scene is not of: of a simulated one.

    Args:
        rate_hz: images for each second of the drive through it.
    """

    def __init__(self, rate_hz: float = 10.0) -> None:
        self._rate_hz = rate_hz
        self._sources: dict[tuple[int, int, int], SimulatedSource] = {}

    def __call__(self, image: UInt8, value: float, number: int) -> UInt8:
        """The other place, in the size and the channels of the image."""
        height, width = image.shape[:2]
        key = (round(value), width, height)
        if key not in self._sources:
            world = WorldConfig(
                seed=key[0],
                place="hall",
                width_px=width,
                height_px=height,
                fps=self._rate_hz,
                duration_s=20.0,
            )
            self._sources[key] = SimulatedSource(world)
        source = self._sources[key]
        shown = source.read(number % len(source.records)).image
        return shown if image.ndim == 3 else np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)


CHANGES: dict[str, Change] = {
    "black": lambda image, value, number: np.zeros_like(image),
    "white": lambda image, value, number: np.full_like(image, 255),
    "covered": _covered,
    "brightness": _brightness,
    "blur": _blur,
    "noise": _noise,
    "upside_down": lambda image, value, number: np.ascontiguousarray(image[::-1, ::-1]),
    "mirrored": lambda image, value, number: np.ascontiguousarray(image[:, ::-1]),
    "other_place": OtherPlace(),
    "size": _size,
}
"""The faults of images that change their pixels."""
