"""Extractors that a model card describes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_networks import SIGNED_UNIT, small_extractor

from localizer_ros.core.types import BackendError
from localizer_ros.features.onnx_extractor import OnnxExtractor


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue is constant."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[:, :, 0] = np.linspace(20, 250, width)
    image[:, :, 1] = np.linspace(20, 250, height)[:, None]
    return image


@pytest.mark.parametrize("fixed", [False, True])
def test_an_extractor_of_the_kind_of_aliked_fits_its_card(tmp_path: Path, fixed: bool) -> None:
    # A network of one fixed size is given that, whatever the image's.
    extractor = OnnxExtractor(small_extractor(tmp_path, *((60, 80) if fixed else ())), 1280)
    image = gradient(120, 160)
    features = extractor.extract(image, 4, fine=True)
    # The four strongest, the strongest first: the inner point, then corners backwards.
    expected = ((SIGNED_UNIT[[4, 3, 2, 1]] + 1.0) / 2.0) * [159.0, 119.0]
    assert np.abs(features.xy_px - expected).max() < (1.0 if fixed else 1e-3)
    assert np.allclose(np.linalg.norm(features.descriptors, axis=1), 1.0, atol=1e-6)
    for xy, descriptor in zip(features.xy_px, features.descriptors, strict=True):
        colour = image[round(float(xy[1])), round(float(xy[0]))].astype(float)
        assert np.abs(descriptor - colour / np.linalg.norm(colour)).max() < 0.02


def test_a_grey_extractor_without_scores(tmp_path: Path) -> None:
    card = small_extractor(tmp_path, channels=1)
    values = yaml.safe_load(card.read_text())
    del values["scores"]
    card.write_text(yaml.safe_dump(values))
    features = OnnxExtractor(card, 1280).extract(gradient(30, 40), 3, fine=False)
    # In the network's order.
    assert np.abs(features.xy_px - [[0, 0], [39, 0], [39, 29]]).max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "expected 1 or 3"),
        ({"coordinates": "inches"}, "pixels or signed_unit"),
        ({"dimensions": 7}, "the card says 7 dimensions"),
    ],
)
def test_a_wrong_card_of_an_extractor_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        OnnxExtractor(small_extractor(tmp_path, **changes), 1280).extract(gradient(30, 40), 10, fine=False)
