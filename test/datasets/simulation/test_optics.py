"""Blur, exposure and noise."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.simulation.lighting import LINEAR, SOURCE, WHITE
from localizer_ros.datasets.simulation.optics import Flicker, PhotonSensor, automatic_gain, motion_blur

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


def stored(linear: float) -> int:
    return int(np.argmin(np.abs(LINEAR - linear * WHITE)))


def exposed(light: float, linear: float, noise: float = 2.0, flicker: Flicker | None = None) -> np.ndarray:
    """A grey card without the edges, which the lens darkens; exposed as white by white."""
    camera = SimulatedSource(SMALL).camera
    sensor = PhotonSensor(camera, light, noise, flicker, np.random.default_rng(0))
    card = np.full((120, 160, 3), stored(linear), np.uint8)
    gain = min(1.0, light / 0.15) / WHITE
    return sensor(card, gain, 0.4, np.random.default_rng(1)).astype(float)[:, 60:100, 1]


def test_noise_is_what_was_asked_for_by_day_and_grows_as_photons_get_fewer():
    middle = slice(50, 70)
    assert exposed(1.0, 0.5**2.2)[middle].std() == pytest.approx(2.0, rel=0.2)

    # Relative to the signal, before the gamma: the root of the number of photons.
    def relative(light):
        seen = (exposed(light, 0.5)[middle] / 255.0) ** 2.2
        return seen.std() / seen.mean()

    day = relative(1.0)
    for light in (0.5, 0.15):
        assert relative(light) == pytest.approx(day / light**0.5, rel=0.2)
    # Below the light of night nothing makes up for it.
    assert exposed(0.02, 0.5)[middle].mean() < 0.5 * exposed(0.15, 0.5)[middle].mean()


def test_sources_of_light_dazzle_however_dark_it_is():
    sensor = PhotonSensor(SimulatedSource(SMALL).camera, 0.01, 2.0, None, np.random.default_rng(0))
    image = np.full((120, 160, 3), stored(0.3), np.uint8)
    image[55:65, 75:85] = SOURCE
    seen = sensor(image, 0.07 / WHITE, 0.0, np.random.default_rng(1))
    assert seen[57:63, 77:83].min() == 255 and np.median(seen) < 60


@pytest.mark.parametrize(("exposure_ms", "banded"), [(2.0, True), (10.0, False)])
def test_mains_flicker_makes_bands_unless_the_exposure_is_a_whole_period(exposure_ms, banded):
    rows = exposed(1.0, 0.4, 0.0, Flicker(100.0, 1e-3 * exposure_ms)).mean(axis=1)[5:-5]
    steady = exposed(1.0, 0.4, 0.0).mean(axis=1)[5:-5]
    ratio = rows / steady
    assert (np.ptp(ratio) > 0.3) == banded
    if banded:
        # A readout of 16 ms at 100 Hz is 1.6 periods.
        crossings = np.count_nonzero(np.diff(np.sign(ratio - ratio.mean())))
        assert crossings in (2, 3, 4)
    else:
        assert np.ptp(ratio) < 0.02


def test_automatic_exposure_makes_up_for_what_it_metered_until_night():
    dim, bright = (np.full((30, 40, 3), stored(linear), np.uint8) for linear in (0.1, 0.4))
    ratio = LINEAR[bright].mean() / LINEAR[dim].mean()
    assert automatic_gain(dim, 1.0, 0.0) == pytest.approx(ratio * automatic_gain(bright, 1.0, 0.0))
    assert automatic_gain(dim, 0.2, 0.0) == automatic_gain(dim, 1.0, 0.0)
    assert automatic_gain(dim, 0.03, 0.0) == pytest.approx(0.2 * automatic_gain(dim, 1.0, 0.0))
    steps = {automatic_gain(np.full((4, 4, 3), code, np.uint8), 1.0, 1.0) for code in range(5, 250)}
    assert 2 < len(steps) < 12
    assert all(np.log2(step) == pytest.approx(round(np.log2(step))) for step in steps)
