"""Augmentation of training images: light, colour, blur, noise, a smaller view, and low light. Poses stay as they are.

In low light hardly any light is left but that of lamps, with the noise of long exposure. What a place looks like by day
does not say where its lamps are: each training sequence is shown under lamps drawn at random, fixed to the world or to
the camera (a headlight), so that what is learned is what does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.types import Array, Camera

# Left, top, right and bottom of a part of an image, pixels.
Window = tuple[int, int, int, int]

# Shares of the images that are blurred, and that get noise; the others stay as sharp and as clean as they are.
_BLURRED = _NOISY = 0.3
_GAMMA = 2.2
# Illumination is smooth: computed on a grid this much coarser than the image.
_STEP_PX = 4
_LEVELS = 4096
_TO_LINEAR = ((np.arange(256) / 255.0) ** _GAMMA).astype(np.float32)
_FROM_LINEAR = np.round(255.0 * (np.arange(_LEVELS) / (_LEVELS - 1)) ** (1.0 / _GAMMA)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Appearance:
    """What all images of a training sequence have in common: one camera in one light.

    Attributes:
        colour: (256, 3) lookup table.
        low_light: lamps, None by day.
        window: the part of the image that the camera fills.
    """

    colour: NDArray[np.uint8]
    low_light: LowLight | None
    window: Window

    def applied(
        self,
        image: NDArray[np.uint8],
        camera: Camera,
        R_map_cam: Array,
        config: AugmentationConfig,
        rng: np.random.Generator,
    ) -> NDArray[np.uint8]:
        """(h, w, 3) uint8: an image as it appears in this sequence, with a blur and noise of its own.

        Args:
            image: (h, w, 3) uint8 RGB.
            camera: ideal pinhole.
            R_map_cam: (3, 3) its orientation.
            config: how strong blur and noise are.
            rng: draws them.
        """
        image = degrade(image, rng, config, self.colour)
        if self.low_light is not None:
            noise = normal_numbers(image.shape, rng)
            image = in_low_light(image, camera, R_map_cam, self.low_light, noise)
        return outside_black(image, self.window)


def random_appearance(
    rng: np.random.Generator, config: AugmentationConfig, width_px: int, height_px: int
) -> Appearance:
    """The appearance of a training sequence of images of this size, drawn at random."""
    return Appearance(
        random_colour(rng, config.colour),
        random_low_light(rng) if rng.random() < config.low_light else None,
        random_window(rng, config.crop, width_px, height_px),
    )


def random_colour(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """(256, 3) lookup table: gain, contrast, colour cast and gamma drawn at random."""
    level = np.linspace(0.0, 1.0, 256)[:, None]
    gamma = np.exp(rng.uniform(-0.8, 0.8) * strength)
    contrast = 1.0 + rng.uniform(-0.6, 0.6) * strength
    gain = np.exp(rng.uniform(-0.5, 0.5) * strength) * np.exp(rng.uniform(-0.2, 0.2, 3) * strength)
    table = gain * ((level**gamma - 0.5) * contrast + 0.5)
    return np.asarray(np.clip(255.0 * table, 0.0, 255.0), np.uint8)


def degrade(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    config: AugmentationConfig,
    colour: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: the image with motion blur, another light, less colour and sensor noise; geometry stays."""
    if config.blur_px > 0.0 and rng.random() < _BLURRED:
        length, angle = rng.uniform(1.0, max(1.0, config.blur_px)), rng.uniform(0.0, np.pi)
        image = np.asarray(cv2.filter2D(image, -1, _blur_kernel(length, angle)), np.uint8)
    if config.colour > 0.0:
        image = np.asarray(cv2.LUT(image, colour[None]), np.uint8)
        faded = rng.uniform(0.0, config.colour)
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = np.asarray(cv2.addWeighted(image, 1.0 - faded, gray, faded, 0.0), np.uint8)
    if config.noise > 0.0 and rng.random() < _NOISY:
        sigma = 255.0 * rng.uniform(0.0, config.noise)
        noise = normal_numbers(image.shape, rng) * np.float32(sigma)
        image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)
    return image


def _blur_kernel(length_px: float, angle_rad: float) -> NDArray[np.float32]:
    """A line that adds up to one."""
    size = 2 * int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    offset = 0.5 * length_px * np.array([np.cos(angle_rad), np.sin(angle_rad)])
    start, end = ((size // 2 - offset) * 16).astype(int), ((size // 2 + offset) * 16).astype(int)
    cv2.line(kernel, start.tolist(), end.tolist(), 1.0, 1, cv2.LINE_AA, 4)
    kernel /= max(kernel.sum(), 1e-6)
    return kernel


def normal_numbers(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal numbers to read: somewhere in a table, as to draw so many takes longer than all else done to an image."""
    size = int(np.prod(shape))
    start = int(rng.integers(size))
    return _normal_table(2 * size)[start : start + size].reshape(shape)


@lru_cache(maxsize=2)
def _normal_table(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


# --- a smaller view ---


def random_window(rng: np.random.Generator, crop: float, width_px: int, height_px: int) -> Window:
    """The part of the network's image that a camera with a smaller view fills.

    A network has one camera: frames of others are resampled onto it, and what they do not see is black. So a crop that
    keeps the intrinsics right is a window that stays where it is. To enlarge it would be another focal length, which
    no frame of the network's camera has.
    """
    cut = rng.uniform(0.0, crop, 2) * (width_px, height_px)
    left, top = rng.random(2) * cut
    return (
        round(left),
        round(top),
        width_px - round(cut[0] - left),
        height_px - round(cut[1] - top),
    )


def outside_black(image: NDArray[Any], window: Window, stride: int = 1) -> NDArray[Any]:
    """``image``, one of whose pixels is ``stride`` pixels wide, with zeros outside the window."""
    left, top, right, bottom = (round(edge / stride) for edge in window)
    if (left, top) == (0, 0) and (bottom, right) == image.shape[:2]:
        return image
    black = np.zeros_like(image)
    black[top:bottom, left:right] = image[top:bottom, left:right]
    return black


# --- low light ---


@dataclass(frozen=True, eq=False)
class LowLight:
    """Lamps, and what a camera makes of their light.

    Attributes:
        ambient: (3,) RGB of what comes from everywhere; the brightest lamp is about 1.
        directions: (L, 3) unit vectors to the middles of the lamps' cones, in the map, as if they were far away; the
            first in the camera: its headlight.
        concentration: (L,) how narrow they are: light falls off as ``exp(-concentration (1 - cos angle))``.
        colours: (L, 3) RGB.
        mean: mean level of the image of an average view, 0..1 and linear.
        noise: of a bright pixel, as a share of full range.
    """

    ambient: Array
    directions: Array
    concentration: Array
    colours: Array
    mean: float
    noise: float


def random_low_light(rng: np.random.Generator) -> LowLight:
    """Low light drawn at random, from dusk with noise to one lamp in the dark."""
    count = int(rng.integers(2, 7))
    directions = rng.normal(size=(count, 3))
    # Lamps hang above or light walls; where up is in a map is not known, but few paths look straight up.
    directions[0] = [rng.normal(0.0, 0.2), rng.normal(0.0, 0.2), 1.0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # From the orange of sodium to the blue of the sky.
    warmth = rng.uniform(-0.5, 1.0, count + 1)
    tints = np.exp(np.outer(warmth, [0.5, 0.0, -0.8]))
    strength = rng.uniform(0.2, 1.0, count)
    strength[0] *= rng.random() < 0.5
    return LowLight(
        ambient=tints[-1] * np.exp(rng.uniform(np.log(0.02), np.log(0.5))),
        directions=directions,
        concentration=np.exp(rng.uniform(np.log(3.0), np.log(30.0), count)),
        colours=tints[:-1] * strength[:, None],
        mean=float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))),
        noise=float(np.exp(rng.uniform(np.log(0.01), np.log(0.06)))),
    )


def in_low_light(
    image: NDArray[np.uint8],
    camera: Camera,
    R_map_refined: Array,
    low_light: LowLight,
    noise: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: an image taken by day as it would be under these lamps.

    Args:
        image: (h, w, 3) uint8 RGB.
        camera: ideal pinhole.
        R_map_refined: (3, 3) its orientation.
        low_light: of the training sequence.
        noise: (h, w, 3) normal numbers.
    """
    h, w = image.shape[:2]
    towards = low_light.directions @ R_map_refined
    towards[0] = low_light.directions[0]
    cosine = _rays(camera.K.tobytes(), h, w) @ towards.T.astype(np.float32)
    falloff = np.exp((cosine - 1.0) * low_light.concentration.astype(np.float32))
    light = falloff @ low_light.colours.astype(np.float32) + low_light.ambient.astype(np.float32)
    seen = cv2.LUT(image, _TO_LINEAR) * cv2.resize(light, (w, h), interpolation=cv2.INTER_LINEAR)
    # Exposure is set for the whole view, as cameras do, by how well it is lit.
    seen *= low_light.mean / (0.2 * float(light.mean()) + 1e-3)
    # Noise of photons grows as the root of their number; a quarter of it is there in the dark too.
    seen += noise * np.sqrt(np.maximum(seen, 0.06)) * np.float32(low_light.noise)
    levels = (np.clip(seen, 0.0, 1.0) * (_LEVELS - 1)).astype(np.uint16)
    return np.asarray(_FROM_LINEAR[levels], np.uint8)


@lru_cache(maxsize=4)
def _rays(K_bytes: bytes, h: int, w: int) -> NDArray[np.float32]:
    """(h / 4, w / 4, 3) unit directions of the pixels in the camera."""
    K = np.frombuffer(K_bytes).reshape(3, 3)
    middle = 0.5 * (_STEP_PX - 1)
    ys, xs = np.mgrid[0:h:_STEP_PX, 0:w:_STEP_PX] + middle
    rays = np.stack([(xs - K[0, 2]) / K[0, 0], (ys - K[1, 2]) / K[1, 1], np.ones_like(xs)], 2)
    return np.asarray(rays / np.linalg.norm(rays, axis=2, keepdims=True), np.float32)
