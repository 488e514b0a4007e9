"""Model cards: read strictly, written so that they are read back, copied into scenes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from localizer_ros.core.types import BackendError, Camera
from localizer_ros.features.onnx_extractor import ExtractorCard
from localizer_ros.inference.model_card import (
    Card,
    ModelCard,
    TensorSpec,
    card_path,
    copy_card,
    network_of,
    read_card,
)

CARD = ModelCard(
    network="posenet.onnx",
    inputs=(TensorSpec("image", (1, 3, 64, 96)), TensorSpec("hidden_prev", (1, 8))),
    outputs=(TensorSpec("t", (1, 3)), TensorSpec("hidden", (1, 8))),
    states={"hidden_prev": "hidden"},
    architecture={"encoder": "resnet18", "dropout": 0.1, "sizes": [3, 4]},
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 1e-5),
    camera=Camera.pinhole(96, 64, 80.0, 80.0, 47.5, 31.5).to_dict(),
    sigma_scale=(1.0, 2.5, 0.1, 1e-12),
)


def extractor(folder: Path, **changes: object) -> Path:
    """A user's card, of a network that is only bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.onnx").write_bytes(b"network")
    values: dict[str, object] = {
        "network": "network.onnx",
        "input": "image",
        "multiple_of": 32,
        "keypoints": "keypoints",
        "descriptors": "descriptors",
        "dimensions": 64,
    }
    values.update(changes)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


def test_a_card_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = card_path(tmp_path, CARD.name)
    CARD.write(path)
    assert path.name == "posenet.yaml" and CARD.weights == "posenet.safetensors"
    assert read_card(path, ModelCard) == CARD


def test_an_impossible_camera_is_an_error_that_names_the_card(tmp_path: Path) -> None:
    path = card_path(tmp_path, CARD.name)
    CARD.write(path)
    values = yaml.safe_load(path.read_text())
    values["camera"]["K"][0] = -80.0
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BackendError, match=r"posenet\.yaml: camera: expected a finite 3x3 K"):
        read_card(path, ModelCard)


def test_what_a_user_leaves_out_has_a_default(tmp_path: Path) -> None:
    card = read_card(extractor(tmp_path), ExtractorCard)
    assert (card.channels, card.coordinates, card.scores, card.sha256) == (3, "pixels", "", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None, "dimensions": None}, r"mine\.yaml: input, dimensions missing in the model card"),
        ({"scorse": "scores"}, r"mine\.yaml: unknown in a model card: scorse; known: network, .*scores"),
        ({"multiple_of": "32"}, r"mine\.yaml: multiple_of: expected a whole number above 0, got '32'"),
        ({"multiple_of": 0}, r"multiple_of: expected a whole number above 0, got 0"),
        ({"channels": 2}, r"channels: expected 1 or 3, got 2"),
        ({"keypoints": ["a", "b"]}, r"keypoints: expected the name of an output"),
    ],
)
def test_a_wrong_card_is_named_with_its_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        read_card(extractor(tmp_path, **changes), ExtractorCard)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\x00"])
def test_a_file_that_is_no_card_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(BackendError, match=r"card\.yaml"):
        read_card(path, Card)
    with pytest.raises(BackendError, match=r"none\.yaml"):
        read_card(tmp_path / "none.yaml", Card)


def test_a_copied_card_knows_its_network(tmp_path: Path) -> None:
    path = copy_card(extractor(tmp_path / "mine", scores="scores"), ExtractorCard, tmp_path / "scene")
    card = read_card(path, ExtractorCard)
    assert card.scores == "scores" and network_of(path, card) == tmp_path / "scene" / "network.onnx"
    (tmp_path / "scene" / "network.onnx").write_bytes(b"another")
    with pytest.raises(BackendError, match=r"network\.onnx: is not the network of its model card"):
        network_of(path, card)
    (tmp_path / "scene" / "network.onnx").unlink()
    with pytest.raises(BackendError, match=r"network\.onnx: is missing beside its model card"):
        network_of(path, card)
