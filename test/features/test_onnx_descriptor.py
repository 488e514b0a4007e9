"""Global descriptors by a network that a model card describes."""

from pathlib import Path

import numpy as np
import pytest
from small_networks import small_descriptor

from localizer_ros.core.types import BackendError, ConfigError
from localizer_ros.features.onnx_descriptor import NetworkDescriptor, open_network_descriptor


def test_a_wrong_card_of_a_descriptor_is_named(tmp_path: Path) -> None:
    image = np.zeros((12, 16, 3), np.uint8)
    for changes, message in (
        ({"width": None}, "width and height are needed"),
        ({"mean": 0.5}, "expected three numbers"),
        ({"dimensions": 4}, "length 3, the card says 4"),
        ({"descriptor": "other"}, "other"),
    ):
        with pytest.raises(BackendError, match=message):
            NetworkDescriptor(small_descriptor(tmp_path, **changes)).of(image)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a model card"):
        open_network_descriptor("")


def test_a_saved_descriptor_needs_nothing_of_where_it_came_from(tmp_path: Path) -> None:
    card = small_descriptor(tmp_path / "mine")
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    descriptor = NetworkDescriptor(card)
    written = descriptor.save(tmp_path / "scene")
    assert written == sum(file.stat().st_size for file in (tmp_path / "scene").rglob("*") if file.is_file())
    expected = descriptor.of(image)
    for file in card.parent.iterdir():
        file.unlink()
    loaded = NetworkDescriptor.load(tmp_path / "scene")
    assert loaded is not None and NetworkDescriptor.load(tmp_path) is None
    assert np.array_equal(loaded(image, np.zeros((0, 8), np.float32)), expected)
