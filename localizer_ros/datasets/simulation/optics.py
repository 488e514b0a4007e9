"""What lens, sensor and motion do to an ideal image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Float32, UInt8
from localizer_ros.datasets.simulation.lighting import GAMMA, LINEAR, SOURCE, WHITE


def motion_blur(image: UInt8, inv_z: Float32, camera: Camera, T_begin_end: SE3) -> UInt8:
    """Blur by the camera's motion during the exposure, in whose middle ``image`` was taken.

    Each pixel averages the image along its own motion, which follows from its depth.

    Args:
        image: (H, W, 3).
        inv_z: (H, W) inverse depth, 1/m.
        camera: ideal pinhole.
        T_begin_end: motion of the camera during the exposure.
    """
    # The motion field is smooth but at depth edges: every eighth pixel will do.
    step = 8
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    coarse = inv_z[::step, ::step]
    y, x = np.mgrid[0 : inv_z.shape[0] : step, 0 : inv_z.shape[1] : step].astype(np.float32)
    ray = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], axis=-1)
    T_end_begin = T_begin_end.inverse()
    moved = ray @ T_end_begin.R.T.astype(np.float32) + coarse[..., None] * T_end_begin.t.astype(np.float32)
    z = np.maximum(moved[..., 2], 1e-3)
    flow = np.stack([fx * moved[..., 0] / z + cx - x, fy * moved[..., 1] / z + cy - y], axis=-1)
    longest = float(np.percentile(np.linalg.norm(flow, axis=-1), 95))
    if longest < 0.5:
        return image
    count = int(np.clip(np.ceil(longest / 1.2) + 1, 2, 16))
    height, width = inv_z.shape
    full = cv2.resize(
        flow.astype(np.float32), (flow.shape[1] * step, flow.shape[0] * step), interpolation=cv2.INTER_LINEAR
    )[:height, :width]
    grid_x = np.arange(width, dtype=np.float32)[None]
    grid_y = np.arange(height, dtype=np.float32)[:, None]
    total = np.zeros(image.shape, np.float32)
    for fraction in (np.arange(count) + 0.5) / count - 0.5:
        map_x = grid_x + np.float32(fraction) * full[..., 0]
        map_y = grid_y + np.float32(fraction) * full[..., 1]
        shifted = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.accumulate(shifted, total)
    return np.asarray(cv2.convertScaleAbs(total, alpha=1.0 / count), np.uint8)


# Light at which automatic exposure is at its longest: what is darker looks darker, and its noise stays.
_DARKEST_EXPOSED = 0.15


class Sensor:
    """Vignetting, exposure, colour cast, tone curve and noise.

    Args:
        camera: for the size.
        light: 0 (black) to 1 (day); the darker, the warmer, the flatter and the more vignetted. Exposure makes up for
            the loss down to night (0.15).
        noise: sigma of the noise in grey levels of 255.
        rng: of the drive.
    """

    def __init__(self, camera: Camera, light: float, noise: float, rng: np.random.Generator) -> None:
        dark = 1.0 - float(np.clip(light, 0.0, 1.0))
        y, x = np.mgrid[0 : camera.height_px, 0 : camera.width_px].astype(np.float32)
        radius = np.hypot(x - camera.K[0, 2], y - camera.K[1, 2]) / np.hypot(
            camera.width_px / 2, camera.height_px / 2
        )
        falloff = np.clip(1.0 - (0.15 + 0.25 * dark) * radius**2, 0.0, 1.0)
        self._vignette = np.repeat((255.0 * falloff).astype(np.uint8)[..., None], 3, axis=2)
        self._gain = light if light > 1.0 else (1.0 + 0.35 * dark) * min(1.0, light / _DARKEST_EXPOSED)
        self._gamma = 1.0 - 0.2 * dark
        warm = np.array([1.0 + 0.12 * dark, 1.0, 1.0 - 0.22 * dark])
        self._cast = warm * rng.normal(1.0, 0.02, 3)
        self._flicker = rng.uniform(0.0, 2.0 * np.pi, 2)
        # One field of noise, shifted for each frame, is as good as a new one and far cheaper.
        self._margin = 61
        size = (camera.height_px + self._margin, camera.width_px + self._margin, 3)
        field = noise * rng.standard_normal(size, dtype=np.float32)
        self._noise = np.rint(field).astype(np.int16) if noise > 0.0 else None

    def __call__(self, image: UInt8, time_s: float, rng: np.random.Generator) -> UInt8:
        """The image as the sensor delivers it; ``rng`` is the frame's own."""
        # Automatic exposure wanders a little.
        wander = (
            1.0
            + 0.06 * np.sin(0.9 * time_s + self._flicker[0])
            + 0.03 * np.sin(2.3 * time_s + self._flicker[1])
        )
        level = np.arange(256)[:, None] / 255.0
        curve = 255.0 * np.clip(level * self._gain * wander * self._cast, 0.0, 1.0) ** self._gamma
        shaded = cv2.multiply(image, self._vignette, scale=1.0 / 255.0)
        toned = cv2.LUT(shaded, np.rint(curve).astype(np.uint8)[None])
        if self._noise is None:
            return np.asarray(toned, np.uint8)
        y, x = rng.integers(0, self._margin, 2)
        part = self._noise[y : y + image.shape[0], x : x + image.shape[1]]
        return np.asarray(cv2.add(toned, part, dtype=cv2.CV_8U), np.uint8)


# Mean linear value that automatic exposure aims at: mid grey.
_MID_GREY = 0.18
_GREYEST, _GREY = 0.02, 0.5
_READ_NOISE_ELECTRONS = 2.0
# A source of light is so many times as bright as the brightest surface that is stored.
_DAZZLING = 20.0
# Depth to which lamps on the mains go down: between those with a smoothed supply (0.1) and those without (1).
_FLICKER = 0.5
# From the first row to the last of a rolling shutter; only light is read row by row here, geometry is not.
_READOUT_S = 0.016
_LEVELS = 4095
_CODES = np.rint(255.0 * (np.arange(_LEVELS + 1) / _LEVELS) ** (1.0 / GAMMA)).astype(np.uint8)


def automatic_gain(metered: UInt8, light: float, step_stops: float) -> float:
    """Gain by which automatic exposure multiplies linear values: what was metered becomes mid grey.

    Args:
        metered: (H, W, 3) what the camera saw, as stored.
        light: its level; below that of night the gain is at its end, and images are dark.
        step_stops: the gain goes in steps of so many factors of two; 0 = smoothly.
    """
    mean = float(LINEAR[metered].mean())
    gain = _MID_GREY / float(np.clip(mean, _GREYEST * WHITE, _GREY))
    if step_stops > 0.0:
        gain = float(2.0 ** (step_stops * np.round(np.log2(gain) / step_stops)))
    return gain * min(1.0, light / _DARKEST_EXPOSED)


@dataclass(frozen=True)
class Flicker:
    """Of lamps on the mains.

    Attributes:
        hertz: twice the frequency of the mains; 0 = steady.
        exposure_s: time that a row of the image is exposed, which averages over it.
    """

    hertz: float
    exposure_s: float


class PhotonSensor:
    """A sensor that counts photons: lens, gain, noise that grows as light fails, mains flicker, and a gamma.

    Args:
        camera: for the size.
        light: level, 1 by day: so many photons.
        noise: sigma in grey levels of 255 at mid grey by day, which says how many photons fill a pixel; 0 = none.
        flicker: of the lamps, None by day.
        rng: of the drive.
    """

    def __init__(
        self,
        camera: Camera,
        light: float,
        noise: float,
        flicker: Flicker | None,
        rng: np.random.Generator,
    ) -> None:
        y, x = np.mgrid[0 : camera.height_px, 0 : camera.width_px].astype(np.float32)
        radius = np.hypot(x - camera.K[0, 2], y - camera.K[1, 2]) / np.hypot(
            camera.width_px / 2, camera.height_px / 2
        )
        self._falloff = np.repeat((1.0 - 0.3 * radius**2)[..., None], 3, axis=2)
        # Half of the colour of lamps is left after the white balance.
        colour = np.array([1.0, 1.0, 1.0] if flicker is None else [1.12, 1.0, 0.78]) * rng.normal(
            1.0, 0.02, 3
        )
        # Photons that fill a pixel of white by day, from the noise at mid grey: d(255 v^(1/g)) = noise.
        mid = 0.5**GAMMA
        slope = 255.0 / GAMMA * mid ** (1.0 / GAMMA - 1.0)
        self._full = (slope / noise) ** 2 * mid * max(light, 1e-4) if noise > 0.0 else None
        full = 1.0 if self._full is None else self._full
        stored = LINEAR.copy()
        stored[SOURCE] *= _DAZZLING
        table = stored[:, None] / WHITE * full * colour**GAMMA
        self._electrons = np.ascontiguousarray(table[None], np.float32)
        self._flicker = flicker
        self._phase = float(rng.uniform(0.0, 2.0 * np.pi))
        # One field of noise, shifted for each frame, is as good as a new one and far cheaper.
        self._margin = 61
        size = (camera.height_px + self._margin, camera.width_px + self._margin, 3)
        self._noise = rng.standard_normal(size, dtype=np.float32)

    def __call__(self, image: UInt8, gain: float, time_s: float, rng: np.random.Generator) -> UInt8:
        """The image as the sensor delivers it.

        Args:
            image: (H, W, 3) as stored, see :mod:`lighting`.
            gain: of automatic exposure, on linear values.
            time_s: middle of the exposure of the middle row.
            rng: the frame's own.
        """
        electrons = cv2.LUT(image, self._electrons)
        electrons *= self._falloff
        electrons *= self._bands(len(image), time_s)[:, None, None]
        full = 1.0
        if self._full is not None:
            full = self._full
            y, x = rng.integers(0, self._margin, 2)
            sigma = np.sqrt(electrons + np.float32(_READ_NOISE_ELECTRONS**2))
            sigma *= self._noise[y : y + image.shape[0], x : x + image.shape[1]]
            electrons += sigma
        electrons *= np.float32(_LEVELS * gain * WHITE / full)
        np.clip(electrons, 0.0, float(_LEVELS), out=electrons)
        return np.asarray(_CODES[electrons.astype(np.uint16)])

    def _bands(self, rows: int, time_s: float) -> Float32:
        """(rows,) brightness of lamps while each row was exposed, 1 on average."""
        if self._flicker is None or self._flicker.hertz == 0.0:
            return np.ones(rows, np.float32)
        at = time_s + _READOUT_S * ((np.arange(rows) + 0.5) / rows - 0.5)
        # numpy's sinc has the pi in it.
        rest = np.sinc(self._flicker.hertz * self._flicker.exposure_s)
        wave = np.sin(2.0 * np.pi * self._flicker.hertz * at + self._phase)
        return np.asarray(1.0 + _FLICKER * rest * wave, np.float32)
