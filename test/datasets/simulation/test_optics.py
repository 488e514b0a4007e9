"""Blur, exposure and noise."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.simulation.optics import motion_blur

SMALL = WorldConfig(width_px=160, height_px=120, duration_s=3.0, fps=10.0)


def as_dict(config, **changes):
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    return {**values, **changes}


@pytest.fixture(scope="module")
def small():
    return SimulatedSource(SMALL)


def test_motion_blur_is_that_of_averaged_exposures():
    source = SimulatedSource(
        WorldConfig(**as_dict(SMALL, noise=0.0, moving_objects=0, width_px=320, height_px=240))
    )
    index = 20
    image, inv_z = source.render(index)
    T_map_mid = source.records[index].T_map_cam
    # 6 degrees of turn and 5 cm of motion.
    T_begin_end = SE3.exp([0.01, 0.1, 0.0, 0.01, 0.0, 0.05])
    half = SE3.exp(0.5 * T_begin_end.log())
    exposures = []
    for fraction in np.linspace(-1.0, 1.0, 33):
        T_mid_now = SE3.exp(fraction * half.log())
        source._renderer.render(T_map_mid @ T_mid_now)
        exposures.append(source._renderer.render(T_map_mid @ T_mid_now)[0].astype(float))
    expected = np.mean(exposures, axis=0)
    blurred = motion_blur(image, inv_z, source.camera, T_begin_end)
    inner = (slice(15, -15), slice(30, -30))
    error = np.abs(blurred.astype(float) - expected)[inner].mean()
    unblurred = np.abs(image.astype(float) - expected)[inner].mean()
    # The rest are depth edges, where a pixel's own motion is not that of what it hides.
    assert error < 0.3 * unblurred
    assert motion_blur(image, inv_z, source.camera, SE3.identity()) is image


def test_below_the_light_of_night_images_drown_in_noise(small):
    """Contrast over noise: exposure holds it up to night, nothing does below."""

    def seen(light):
        source = SimulatedSource(WorldConfig(**as_dict(SMALL, light=light, noise=0.0)))
        return to_gray(source.read(5).image).astype(np.float64)

    day, night, dark, darker = (seen(light) for light in (1.0, 0.15, 0.05, 0.01))
    assert night.std() > 0.5 * day.std()
    assert dark.std() < 0.5 * night.std() and darker.std() < 0.5 * dark.std()
    assert darker.mean() < 20.0
