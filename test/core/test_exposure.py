"""Underexposed images are made bright, others stay as they are."""

import itertools

import numpy as np
import pytest

from localizer_ros.core import exposure
from localizer_ros.core.exposure import bright_grey, brightened, exposure_gain, noise_level
from localizer_ros.core.preprocess import to_gray
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import LocalFeatures
from localizer_ros.features.rootsift import RootSift


@pytest.fixture(scope="module")
def by_day(tiny_source: FrameSource) -> np.ndarray:
    return tiny_source.read(0).image


def at_light(image: np.ndarray, light: float) -> np.ndarray:
    return np.asarray(np.rint(image * light), np.uint8)


def test_an_image_by_day_stays_as_it_is_to_the_bit(by_day: np.ndarray) -> None:
    assert exposure_gain(by_day) == 1.0
    assert brightened(by_day) is by_day
    assert np.array_equal(bright_grey(by_day), to_gray(by_day))


@pytest.mark.parametrize("light", [0.3, 0.1])
def test_a_dark_image_shows_the_same_keypoints(by_day: np.ndarray, light: float) -> None:
    extractor = RootSift(0.012, 1280)
    day, night = (extractor.extract(image, 200, True) for image in (by_day, at_light(by_day, light)))
    assert len(night) > 0.5 * len(day)
    apart = np.linalg.norm(night.xy_px[:, None] - day.xy_px[None], axis=2).min(axis=1)
    assert np.median(apart) < 1.0


def test_grey_and_colour_become_as_bright(by_day: np.ndarray) -> None:
    dark = at_light(by_day, 0.05)
    assert brightened(dark).shape == dark.shape
    assert brightened(to_gray(dark)).shape == dark.shape[:2]
    for bright in (bright_grey(dark), brightened(dark), brightened(to_gray(dark))):
        assert np.percentile(bright, 99) == pytest.approx(128.0, rel=0.15)


def test_the_gain_is_that_of_the_brightest_hundredth(rng: np.random.Generator) -> None:
    for side in (1, 8, 9, 17, 100, 480):
        image = rng.integers(0, 120, (side, side + 3, 3), np.uint8)
        brightest = np.percentile(image[::8, ::8].max(axis=2), 99.0)
        assert exposure_gain(image) == pytest.approx(128.0 / max(brightest, 2.0), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7, 3), (480, 640)])
def test_a_black_image_stays_black(shape: tuple[int, ...]) -> None:
    black = np.zeros(shape, np.uint8)
    assert not brightened(black).any() and not bright_grey(black).any()


def test_light_that_fades_does_not_step(by_day: np.ndarray) -> None:
    gains = [exposure_gain(at_light(by_day, light)) for light in np.linspace(1.0, 0.05, 40)]
    assert all(after >= before * 0.98 for before, after in itertools.pairwise(gains))
    assert max(after / before for before, after in itertools.pairwise(gains)) < 1.6


def noisy(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    grey = to_gray(image).astype(np.float64)
    return np.clip(np.rint(grey + sigma * rng.standard_normal(grey.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [3.0, 6.0, 12.0])
def test_the_level_of_noise_is_found_under_texture(
    by_day: np.ndarray, sigma: float, rng: np.random.Generator
) -> None:
    assert noise_level(to_gray(by_day)) < 2.0
    assert noise_level(noisy(by_day, sigma, rng)) == pytest.approx(sigma, rel=0.3)


def right_matches(a: LocalFeatures, b: LocalFeatures) -> int:
    """How many mutual nearest neighbours lie at the same place of the same view."""
    cosine = a.descriptors @ b.descriptors.T
    there, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    mutual = back[there] == np.arange(len(a))
    return int(np.sum(np.linalg.norm(a.xy_px - b.xy_px[there], axis=1)[mutual] < 1.5))


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_of_a_noisy_image_more_keypoints_match_those_of_the_day(
    contrast: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, _ = SimulatedSource(WorldConfig(duration_s=1.0)).render(0)
    day, night = RootSift(0.012, 1280), RootSift(0.012, 1280)
    known = day.extract(room, 600, True)
    image = noisy(np.asarray(contrast * room, np.uint8), 10.0, rng)
    smooth = right_matches(known, night.extract(image, 600, False))
    monkeypatch.setattr(exposure, "_QUIET", np.inf)
    as_it_is = right_matches(known, night.extract(image, 600, False))
    assert smooth > 1.1 * as_it_is, (smooth, as_it_is)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 8), (480, 640)])
def test_nothing_is_said_of_the_noise_of_black_white_or_tiny_images(shape: tuple[int, int]) -> None:
    for level in (0, 255):
        assert noise_level(np.full(shape, level, np.uint8)) == 0.0
