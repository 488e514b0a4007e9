"""Underexposed images made bright enough to be looked at, and noisy ones smooth enough.

Keypoint detectors have an absolute threshold of contrast, and networks have seen images by day: both are blind to an
image that fills a tenth of the range of its pixels, though all it shows is there. A gain for the whole image brings it
back; what is exposed as cameras do by themselves stays as it is, to the bit.

Where photons are few, the strongest keypoints are noise. Blurred as much as its noise asks for, such an image shows the
keypoints that it shows by day. A gain that follows the light within the image (local contrast normalisation) was tried
beside it and answered fewer: it lifts the noise of dark corners, too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.arrays import UInt8
from localizer_ros.core.statistics import percentile

# Grey level that the brightest hundredth of the pixels reaches at least. Automatic exposure keeps it far higher: 212 is
# the lowest of 84 images of a room, an office and a road, so that none of them changes.
_BRIGHT = 128.0
# In an image darker than this, of 255 levels, there is the sensor's noise and nothing else.
_DARKEST = 2.0
# Noise, sigma in grey levels, up to which images stay as they are: 1.4 is the most in 120 images by day of a room, an
# office and a road, and in simulated ones with a noise of 2 in each colour.
_QUIET = 2.0
# Noise that a blur should leave: white noise is divided by twice the root of pi times sigma. In a simulated room at a
# hundredth of the light 13 of 15 single searches are answered with it; with no blur 7, with twice as much 7.
_LEFT = 1.0
_WIDEST_BLUR_PX = 1.5
# Noise is looked for where nothing else is, in the quietest fifth of the blocks of about eight rows of them.
_BLOCK = 8
_ROWS_OF_BLOCKS = 8
_QUIETEST_PERCENT = 20.0
_DARK_BLOCK, _BRIGHT_BLOCK = 8.0, 245.0
_FEWEST_BLOCKS = 20
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
    return max(1.0, _BRIGHT / max(percentile(some.ravel(), 99.0), _DARKEST))


def brightened(image: UInt8) -> UInt8:
    """The image itself when it is bright enough, else one that is: same shape."""
    gain = exposure_gain(image)
    return image if gain == 1.0 else np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def noise_level(grey: UInt8) -> float:
    """Sigma of the noise of an image in grey levels, 0.0 where it is black or white throughout.

    Args:
        grey: (H, W).
    """
    height, width = grey.shape[0] - _BLOCK, (grey.shape[1] - 1) // _BLOCK * _BLOCK
    if height <= 0 or width <= 0:
        return 0.0
    tops = np.arange(0, height, max(_BLOCK, height // _ROWS_OF_BLOCKS))
    strips = grey[tops[:, None] + np.arange(_BLOCK + 1), : width + 1].astype(np.int16)
    # Edges and shading along either axis cancel; of noise twice its sigma is left.
    crossed = np.abs(np.diff(np.diff(strips, axis=2), axis=1))
    level = _block_means(strips[:, :_BLOCK, :width])
    told = _block_means(crossed)[(level > _DARK_BLOCK) & (level < _BRIGHT_BLOCK)]
    if len(told) < _FEWEST_BLOCKS:
        return 0.0
    # The mean of an absolute normal value is the root of 2 / pi of its sigma.
    return percentile(told, _QUIETEST_PERCENT) * float(np.sqrt(np.pi / 2.0)) / 2.0


def _block_means(strips: NDArray[np.int16]) -> NDArray[np.float64]:
    """(S, W) means of the square blocks of (S, 8, 8 W) strips."""
    # Rows first, which are long: adding up eight values at a time takes five times as long.
    columns = strips.sum(axis=1, dtype=np.int32)
    sums = columns.reshape(len(strips), -1, _BLOCK).sum(axis=2)
    return np.asarray(sums / float(_BLOCK * _BLOCK))


def bright_grey(image: UInt8) -> UInt8:
    """(H, W) of a grey or RGB image, bright enough and without most of its noise.

    The grey of dark colours is made with the gain in it: rounding it first would lose the few levels that there are.
    """
    grey = _bright_grey(image)
    noise = noise_level(grey)
    if noise <= _QUIET:
        return grey
    blur_px = (noise**2 - _QUIET**2) ** 0.5 / (2.0 * np.pi**0.5 * _LEFT)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), min(float(blur_px), _WIDEST_BLUR_PX)), np.uint8)


def _bright_grey(image: UInt8) -> UInt8:
    if image.ndim == 2:
        return np.ascontiguousarray(brightened(image))
    gain = exposure_gain(image)
    if gain == 1.0:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    weights = np.array([[0.299, 0.587, 0.114]], np.float32) * np.float32(gain)
    return np.asarray(np.clip(np.rint(cv2.transform(image.astype(np.float32), weights)), 0, 255), np.uint8)
