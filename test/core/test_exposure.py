"""Underexposed images are made bright, others stay as they are."""

import itertools

import numpy as np
import pytest

from localizer_ros.core.exposure import bright_grey, brightened, exposure_gain
from localizer_ros.core.preprocess import to_gray
from localizer_ros.datasets.source import FrameSource
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
