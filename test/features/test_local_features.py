"""Keypoints of an image, and descriptors in storage."""

import numpy as np
import pytest

from localizer_ros.core.config.mapping import LocalFeatureConfig
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.extractors import open_extractor
from localizer_ros.features.local_features import from_bytes, to_bytes
from localizer_ros.features.rootsift import RootSift


def unit(rng: np.random.Generator, count: int, dimensions: int = 128) -> np.ndarray:
    values = np.abs(rng.normal(size=(count, dimensions))).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_descriptors_survive_storage(rng: np.random.Generator) -> None:
    descriptors = unit(rng, 50)
    assert np.min(np.einsum("nd,nd->n", from_bytes(to_bytes(descriptors, False), False), descriptors)) > 0.999
    signed = rng.normal(size=(50, 64)).astype(np.float32)
    signed /= np.linalg.norm(signed, axis=1, keepdims=True)
    assert np.min(np.einsum("nd,nd->n", from_bytes(to_bytes(signed, True), True), signed)) > 0.999


def test_keypoints_stay_where_they_are_at_both_speeds(tiny_source: FrameSource) -> None:
    image = tiny_source.read(0).image
    extractor = RootSift(0.02, 1280)
    fine, coarse = (extractor.extract(image, 300, fine) for fine in (True, False))
    assert 0 < len(coarse) < len(fine) <= 300
    assert coarse.coarse.all() and not fine.coarse.all()
    assert np.allclose(np.linalg.norm(fine.descriptors, axis=1), 1.0, atol=1e-5)
    # Most keypoints of the image at half its size are found in the finer one too, at the same place.
    apart = np.linalg.norm(coarse.xy_px[:, None] - fine.xy_px[None], axis=2).min(axis=1)
    assert np.median(apart) < 0.5
    assert len(extractor.extract(np.full((60, 80), 90, np.uint8), 300, True)) == 0


def test_an_extractor_without_its_card_is_an_error() -> None:
    assert isinstance(open_extractor(LocalFeatureConfig()), RootSift)
    with pytest.raises(ConfigError, match=r"features\.card: kind onnx needs"):
        open_extractor(LocalFeatureConfig(kind="onnx"))
