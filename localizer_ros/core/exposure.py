"""Underexposed images made bright enough to be looked at.

Keypoint detectors have an absolute threshold of contrast, and networks have seen images by day: both are blind to an
image that fills a tenth of the range of its pixels, though all it shows is there. A gain for the whole image brings it
back; what is exposed as cameras do by themselves stays as it is, to the bit.
"""

from __future__ import annotations

import cv2
import numpy as np

from localizer_ros.core.types import UInt8

# Grey level that the brightest hundredth of the pixels reaches at least. Automatic exposure keeps it far higher: 212 is
# the lowest of 84 images of a room, an office and a road, so that none of them changes.
_BRIGHT = 128.0
# In an image darker than this, of 255 levels, there is the sensor's noise and nothing else.
_DARKEST = 2.0
# The brightest hundredth is looked up on every eighth pixel of every eighth row.
_STEP = 8


def exposure_gain(image: UInt8) -> float:
    """By how much an image has to be brighter, 1.0 for one that is bright enough.

    Args:
        image: (H, W) grey or (H, W, 3) RGB.
    """
    some = image[::_STEP, ::_STEP]
    if some.ndim == 3:
        some = np.maximum(np.maximum(some[..., 0], some[..., 1]), some[..., 2])
    if some.size == 0:
        return 1.0
    return max(1.0, _BRIGHT / max(_percentile_99(some.ravel()), _DARKEST))


def _percentile_99(levels: UInt8) -> float:
    """What NumPy's ``percentile`` gives, in a tenth of its time."""
    at = 0.99 * (len(levels) - 1)
    below = int(at)
    above = min(below + 1, len(levels) - 1)
    ordered = np.partition(levels, (below, above))
    return float(ordered[below]) + (at - below) * (float(ordered[above]) - float(ordered[below]))


def brightened(image: UInt8) -> UInt8:
    """The image itself when it is bright enough, else one that is: same shape."""
    gain = exposure_gain(image)
    return image if gain == 1.0 else np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def bright_grey(image: UInt8) -> UInt8:
    """(H, W) of a grey or RGB image, bright enough.

    The grey of dark colours is made with the gain in it: rounding it first would lose the few levels that there are.
    """
    if image.ndim == 2:
        return np.ascontiguousarray(brightened(image))
    gain = exposure_gain(image)
    if gain == 1.0:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    weights = np.array([[0.299, 0.587, 0.114]], np.float32) * np.float32(gain)
    return np.asarray(np.clip(np.rint(cv2.transform(image.astype(np.float32), weights)), 0, 255), np.uint8)
