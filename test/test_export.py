"""Networks in the files that a robot runs, and the check that they are what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError
from localizer_ros.export import PARITY_DEG, PARITY_M, check_parity
from localizer_ros.inference.model_card import (
    ModelCard,
    card_path,
    read_card,
)

pytestmark = pytest.mark.slow


def images(card: ModelCard, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = next(spec.shape for spec in card.inputs if spec.name == "image")
    return rng.normal(0, 1, (count, *shape[1:])).astype(np.float32)


def test_a_network_that_differs_from_its_weights_is_refused(
    tiny_scene: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "networks"
    shutil.copytree(tiny_scene / "networks", folder)
    path = card_path(folder, "posenet")
    card = read_card(path, ModelCard)
    config = BackendConfig(kind="openvino")
    t_m, r_deg = check_parity(folder, "posenet", config, images(card, 3, rng))
    assert t_m < PARITY_M and r_deg < PARITY_DEG
    # The same ONNX file beside other weights: what a stale export looks like.
    weights = load_file(folder / "posenet.safetensors")
    weights["absolute.position.bias"] = weights["absolute.position.bias"] + 0.5
    save_file(weights, folder / "posenet.safetensors")
    msgspec.structs.replace(card, weights_sha256=sha256_of(folder / card.weights)).write(path)
    with pytest.raises(BackendError, match="differs from torch by"):
        check_parity(folder, "posenet", config, images(card, 1, rng))
