"""Networks to int8: what is quantised and what is not, a gate, and a card that says what it kept."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import export_scene
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.scene.bundle import Scene
from localizer_ros.training import quantize
from localizer_ros.training.quantize import EVERY_LAYER, quantize_scene


@pytest.fixture
def scene(tiny_scene: Path, tmp_path: Path) -> Scene:
    """A copy of the tiny scene that may be written to."""
    shutil.copytree(tiny_scene, tmp_path / "scene")
    return Scene.load(tmp_path / "scene")


def multiplied_in_int8(path: Path) -> list[str]:
    """Names of the convolutions and matrix products whose weights are stored in int8."""
    graph = onnx.load(str(path)).graph
    stored = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    weights = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored}
    return [n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in weights]


def test_a_network_is_quantised_but_for_the_last_products(
    scene: Scene, tiny_source: FrameSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "MOST_ABOVE", 1.5)  # a network trained for a moment errs by chance
    card = quantize_scene(scene, tiny_source)
    networks = scene.path / "networks"
    assert card == read_card(card_path(networks, "posenet.int8"), ModelCard)
    assert card.network == "posenet.int8.onnx" and not card.single_precision
    made = onnx.load(str(networks / card.network))
    products = [n.name for n in made.graph.node if n.op_type in ("Conv", "Gemm")]
    done = multiplied_in_int8(networks / card.network)
    assert 0.8 * len(products) < len(done) < len(products)
    # What gives the pose itself is not rounded.
    assert not [name for name in done if "position" in name or "orientation" in name]
    # TensorRT takes symmetric quantisation only.
    points = [t for t in made.graph.initializer if t.name.endswith("_zero_point")]
    assert points and not any(np.any(numpy_helper.to_array(t)) for t in points)
    size = (networks / "posenet.onnx").stat().st_size
    assert (networks / card.network).stat().st_size < 0.6 * size
    for key in ("t_m", "r_deg"):
        assert card.accuracy[f"int8_median_{key}"] <= 1.5 * card.accuracy[f"fp32_median_{key}"]
    # It runs, and the card learns how far it is from PyTorch.
    result = export_scene(scene, "openvino", BackendConfig(kind="openvino", precision="int8"), tiny_source)
    assert result.card is not None and result.card.parity["openvino"] == pytest.approx(
        (result.t_m, result.r_deg), rel=1e-3
    )
    assert networks / card.network in result.files and result.t_m > 0.0
    Scene.load(scene.path)


def test_where_the_gate_fails_layers_and_then_the_network_stay_precise(
    scene: Scene, tiny_source: FrameSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    networks = scene.path / "networks"
    real = quantize._Gate.errors
    judged: list[str] = []

    def second_is_good(gate: quantize._Gate, name: str) -> dict[str, float]:
        judged.append(name)
        errors = real(gate, name)
        worse = {2: 10.0, 3: 0.5}.get(len(judged), 1.0)
        return {key: worse * value for key, value in errors.items()}

    monkeypatch.setattr(quantize._Gate, "errors", second_is_good)
    card = quantize_scene(scene, tiny_source)
    assert judged == ["posenet", "posenet.int8", "posenet.int8"]
    assert card.single_precision
    done = multiplied_in_int8(networks / card.network)
    assert done and not set(card.single_precision) & set(done)
    # A gate that nothing passes.
    monkeypatch.setattr(quantize._Gate, "errors", real)
    monkeypatch.setattr(quantize, "MOST_ABOVE", 0.0)
    caplog.set_level(logging.WARNING, "localizer_ros")
    card = quantize_scene(scene, tiny_source)
    assert card.single_precision == (EVERY_LAYER,) and card.network == "posenet.onnx"
    assert "the network stays in fp32" in caplog.text and not (networks / "posenet.int8.onnx").exists()
    backend = open_backend(networks, "posenet", BackendConfig(kind="openvino", precision="int8"))
    backend.close()


def test_another_recording_or_network_is_refused(scene: Scene, tiny_source: FrameSource) -> None:
    with pytest.raises(SceneError, match=r"was mapped from 32 frames .* has 20; give the recording"):
        quantize_scene(scene, FirstFrames(tiny_source, 20))
    networks = scene.path / "networks"
    card = read_card(card_path(networks, "posenet"), ModelCard)
    (networks / "posenet.int8.onnx").write_bytes(b"")
    quantize._write_card(networks, card, "posenet.int8.onnx", (), {})
    path = card_path(networks, "posenet.int8")
    path.write_text(path.read_text().replace(f"made_from: {card.sha256}", f"made_from: {'a' * 64}"))
    with pytest.raises(BackendError, match=r"posenet\.int8\.yaml: was made from another posenet\.onnx"):
        open_backend(networks, "posenet", BackendConfig(kind="openvino", precision="int8"))
