"""PyTorch in half precision: of the encoder, so that positions are as exact far from the origin as near it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.inference.processor import has_native_bf16

FAR_M = 1000.0


def position(networks: Path, precision: str) -> np.ndarray:
    backend = open_backend(networks, "posenet", BackendConfig(kind="torch", precision=precision, threads=1))
    shape = next(spec.shape for spec in backend.card.inputs if spec.name == "image")
    answer = backend.run({"image": np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)})
    backend.close()
    return answer["t"][0]


@pytest.mark.parametrize(("precision", "bound_m"), [("fp32", 1e-4), ("fp16", 5e-3), ("bf16", 3e-2)])
def test_positions_are_exact_far_from_the_origin(
    tiny_scene: Path, tmp_path: Path, precision: str, bound_m: float
) -> None:
    if precision == "bf16" and not has_native_bf16():
        pytest.skip("this processor has no bfloat16")
    networks = shutil.copytree(tiny_scene / "networks", tmp_path / "networks")
    near = position(networks, "fp32")
    assert precision == "fp32" or not np.array_equal(position(networks, precision), near)
    card = read_card(card_path(networks, "posenet"), ModelCard)
    weights = load_file(networks / card.weights)
    weights["absolute.centre"] = weights["absolute.centre"] + np.float32(FAR_M)
    save_file(weights, networks / card.weights)
    changed: ModelCard = msgspec.structs.replace(card, weights_sha256=sha256_of(networks / card.weights))
    changed.write(card_path(networks, "posenet"))
    assert np.max(np.abs(position(networks, precision) - FAR_M - near)) < bound_m
