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
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import PARITY, check_parity, export_scene
from localizer_ros.inference.model_card import (
    ModelCard,
    card_path,
    read_card,
)
from localizer_ros.inference.processor import has_gpu, has_native_bf16
from localizer_ros.scene.bundle import Scene

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
    assert t_m < PARITY["fp32"][0] and r_deg < PARITY["fp32"][1]
    # The same ONNX file beside other weights: what a stale export looks like.
    weights = load_file(folder / "posenet.safetensors")
    weights["absolute.position.bias"] = weights["absolute.position.bias"] + 0.5
    save_file(weights, folder / "posenet.safetensors")
    msgspec.structs.replace(card, weights_sha256=sha256_of(folder / card.weights)).write(path)
    with pytest.raises(BackendError, match="differs from torch by"):
        check_parity(folder, "posenet", config, images(card, 1, rng))


def test_export_writes_and_checks_half_precision(
    tiny_scene: Path, tiny_source: FrameSource, tmp_path: Path
) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    opened, half = Scene.load(scene), BackendConfig(kind="openvino", precision="fp16")
    for backend in ("openvino", "onnx"):
        result = export_scene(opened, backend, half, tiny_source)
        assert result.t_m < PARITY["fp16"][0]
        assert all(path.exists() for path in result.files)
    card = read_card(card_path(scene / "networks", "posenet.fp16"), ModelCard)
    assert result.card == card and set(card.parity) == {"openvino", "onnx"}
    network = scene / "networks" / "posenet.fp16.onnx"
    assert network in result.files and sha256_of(network) == card.sha256
    # Positions are read off in single precision, so far from the origin as near it.
    assert 0.0 < card.parity["onnx"][0] < PARITY["fp16"][0]
    Scene.load(scene)  # what is exported is no change of the scene


@pytest.mark.parametrize("backend", ["onnx", "openvino", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_each_precision_is_made_or_one_line_says_what_is_missing(
    backend: str, precision: str, tiny_scene: Path, tiny_source: FrameSource, tmp_path: Path
) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    kind = "openvino" if backend == "onnx" else backend
    missing = {
        "no int8 network in this scene": precision == "int8",
        "has no bfloat16 arithmetic": (backend, precision) == ("openvino", "bf16") and not has_native_bf16(),
        "no NVIDIA driver|not installed|finds no GPU": backend == "tensorrt" and not has_gpu(),
    }
    expected = "|".join(said for said, is_missing in missing.items() if is_missing)
    config = BackendConfig(kind=kind, precision=precision)
    if expected:
        with pytest.raises(BackendError, match=expected) as raised:
            export_scene(Scene.load(scene), backend, config, tiny_source)
        assert "\n" not in str(raised.value)
        return
    result = export_scene(Scene.load(scene), backend, config, tiny_source)
    assert result.card is not None and set(result.card.parity) == {backend}
    assert result.t_m < PARITY[precision][0] and result.r_deg < PARITY[precision][1]
    assert read_card(card_path(scene / "networks", f"posenet.{precision}"), ModelCard) == result.card
