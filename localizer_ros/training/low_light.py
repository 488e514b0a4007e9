"""Night for training images: hardly any light but that of lamps, long exposure's noise, and colours of the lamps.

What a place looks like by day does not say where its lamps are. Each sequence is shown under lamps drawn at random,
fixed to the world or to the camera (a headlight), so that what is learned is what does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Array, Camera

_GAMMA = 2.2
# Illumination is smooth: computed on a grid this much coarser than the image.
_STEP_PX = 4
_LEVELS = 4096
_TO_LINEAR = ((np.arange(256) / 255.0) ** _GAMMA).astype(np.float32)
_FROM_LINEAR = np.round(255.0 * (np.arange(_LEVELS) / (_LEVELS - 1)) ** (1.0 / _GAMMA)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Night:
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


def random_night(rng: np.random.Generator) -> Night:
    """A night, from dusk with noise to one lamp in the dark."""
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
    return Night(
        ambient=tints[-1] * np.exp(rng.uniform(np.log(0.02), np.log(0.5))),
        directions=directions,
        concentration=np.exp(rng.uniform(np.log(3.0), np.log(30.0), count)),
        colours=tints[:-1] * strength[:, None],
        mean=float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))),
        noise=float(np.exp(rng.uniform(np.log(0.01), np.log(0.06)))),
    )


def at_night(
    image: NDArray[np.uint8], camera: Camera, R_map_refined: Array, night: Night, noise: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """An image by day as it would be at night.

    Args:
        image: (h, w, 3) uint8 RGB.
        camera: ideal pinhole.
        R_map_refined: (3, 3) its orientation.
        night: of the drive.
        noise: (h, w, 3) normal numbers.
    """
    h, w = image.shape[:2]
    towards = night.directions @ R_map_refined
    towards[0] = night.directions[0]
    cosine = _rays(camera.K.tobytes(), h, w) @ towards.T.astype(np.float32)
    falloff = np.exp((cosine - 1.0) * night.concentration.astype(np.float32))
    light = falloff @ night.colours.astype(np.float32) + night.ambient.astype(np.float32)
    seen = cv2.LUT(image, _TO_LINEAR) * cv2.resize(light, (w, h), interpolation=cv2.INTER_LINEAR)
    # Exposure is set for the whole view, as cameras do, by how well it is lit.
    seen *= night.mean / (0.2 * float(light.mean()) + 1e-3)
    # Noise of photons grows as the root of their number; a quarter of it is there in the dark too.
    seen += noise * np.sqrt(np.maximum(seen, 0.06)) * np.float32(night.noise)
    return _FROM_LINEAR[(np.clip(seen, 0.0, 1.0) * (_LEVELS - 1)).astype(np.uint16)]


@lru_cache(maxsize=4)
def _rays(K_bytes: bytes, h: int, w: int) -> NDArray[np.float32]:
    """(h / 4, w / 4, 3) unit directions of the pixels in the camera."""
    K = np.frombuffer(K_bytes).reshape(3, 3)
    middle = 0.5 * (_STEP_PX - 1)
    ys, xs = np.mgrid[0:h:_STEP_PX, 0:w:_STEP_PX] + middle
    rays = np.stack([(xs - K[0, 2]) / K[0, 0], (ys - K[1, 2]) / K[1, 1], np.ones_like(xs)], 2)
    return np.asarray(rays / np.linalg.norm(rays, axis=2, keepdims=True), np.float32)
