"""Networks to lower precision: what is quantised and what is not, and a card that says what it kept."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.progress import no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.inference.processor import has_native_bf16
from localizer_ros.scene.bundle import Scene
from localizer_ros.training import lower_precision as lowering
from localizer_ros.training import precision_gate
from localizer_ros.training.lower_precision import EVERY_LAYER, lower_precision
from localizer_ros.training.precision_gate import Answers, PrecisionGate, open_gate

pytestmark = pytest.mark.slow


@pytest.fixture
def gate(scene: Scene, tiny_source: FrameSource) -> PrecisionGate:
    return open_gate(scene, tiny_source, no_progress)


def multiplied_in_int8(path: Path) -> list[str]:
    """Names of the convolutions and matrix products whose weights are stored in int8."""
    graph = onnx.load(str(path)).graph
    stored = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    weights = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored}
    return [n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in weights]


def test_a_network_is_quantised_but_for_the_last_products(
    scene: Scene, gate: PrecisionGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_gate, "MOST_ABOVE", 1.5)  # a network trained for a moment errs by chance
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 1.0)
    card = lower_precision(gate, "int8", no_progress)
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
        assert card.accuracy[f"int8_mean_{key}"] <= 1.5 * card.accuracy[f"fp32_mean_{key}"]
        assert 0.0 < card.accuracy[f"moved_median_{key}"] <= card.accuracy[f"fp32_median_{key}"]
    Scene.load(scene.path)


def test_where_the_gate_fails_layers_and_then_the_network_stay_precise(
    gate: PrecisionGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    networks = gate.folder
    judged: list[str] = []
    real = PrecisionGate.answers

    def second_is_exact(gate: PrecisionGate, name: str, config: BackendConfig) -> Answers:
        judged.append(name)
        answers = real(gate, "posenet", config)
        if len(judged) == 1:  # a metre off
            beside = SE3(np.eye(3), np.array([1.0, 0.0, 0.0]))
            answers = Answers([T and beside @ T for T in answers.poses], answers.motions)
        return answers

    monkeypatch.setattr(PrecisionGate, "answers", second_is_exact)
    card = lower_precision(gate, "int8", no_progress)
    assert judged == ["posenet.int8.trial", "posenet", "posenet.int8.trial"]
    assert card.single_precision
    done = multiplied_in_int8(networks / card.network)
    assert done and not set(card.single_precision) & set(done)
    # A gate that nothing passes.
    monkeypatch.setattr(PrecisionGate, "answers", real)
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 0.0)
    monkeypatch.setattr(lowering, "_PRECISE_SHARES", (0.0, 0.5))
    caplog.set_level(logging.WARNING, "localizer_ros")
    card = lower_precision(gate, "int8", no_progress)
    assert card.single_precision == (EVERY_LAYER,) and card.network == "posenet.onnx"
    assert "the network stays in fp32" in caplog.text and "moved_median_t_m" in caplog.text
    assert not (networks / "posenet.int8.onnx").exists()
    backend = open_backend(networks, "posenet", BackendConfig(kind="openvino", precision="int8"))
    backend.close()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_judged_and_refused_alike(
    gate: PrecisionGate,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(precision_gate, "MOST_ABOVE", 1.5)  # a network trained for a moment errs by chance
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 1.0)
    card = lower_precision(gate, precision, no_progress)
    assert card == read_card(card_path(gate.folder, f"posenet.{precision}"), ModelCard)
    assert card.network == f"posenet.{precision}.onnx" and not card.single_precision
    assert 0.0 < card.accuracy["moved_median_t_m"] < card.accuracy["fp32_median_t_m"]
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 0.0)
    card = lower_precision(gate, precision, no_progress)
    assert card.single_precision == (EVERY_LAYER,) and card.network == "posenet.onnx"
    assert not (gate.folder / f"posenet.{precision}.onnx").exists()
    said = caplog.messages[-1]
    assert said.startswith(f"{precision}: the network stays in fp32") and "moved_median_t_m" in said
    assert "\n" not in said and card.accuracy["moved_median_t_m"] > 0.0
    if precision == "fp16" or has_native_bf16():
        config = BackendConfig(kind="openvino", precision=precision)
        first, exact = (gate.answers("posenet", c).poses[0] for c in (config, lowering._AS_WRITTEN))
        assert first is not None and exact is not None
        np.testing.assert_array_equal(first.matrix(), exact.matrix())


@pytest.mark.parametrize("judged_before", [False, True])
def test_what_is_not_judged_to_its_end_is_never_run(
    gate: PrecisionGate, monkeypatch: pytest.MonkeyPatch, judged_before: bool
) -> None:
    before: dict[str, bytes] = {}
    if judged_before:
        lower_precision(gate, "fp16", no_progress)
        before = {path.name: path.read_bytes() for path in gate.folder.glob("*.fp16.*")}
        assert before
    run: list[str] = []

    def interrupted(self: PrecisionGate, name: str, config: BackendConfig) -> Answers:
        # As a process that is killed here would leave it.
        run.extend(path.name for path in gate.folder.glob("posenet.fp16.*") if "trial" not in path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(PrecisionGate, "answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lower_precision(gate, "fp16", no_progress)
    assert sorted(run) == sorted(before)
    assert {path.name: path.read_bytes() for path in gate.folder.glob("*.fp16.*")} == before


def test_a_quantised_network_of_another_one_is_refused(gate: PrecisionGate) -> None:
    card = read_card(card_path(gate.folder, "posenet"), ModelCard)
    (gate.folder / "posenet.int8.onnx").write_bytes(b"")
    lowering._write_card(gate, card, "posenet.int8", "posenet.int8.onnx", (), {})
    path = card_path(gate.folder, "posenet.int8")
    path.write_text(path.read_text().replace(f"made_from: {card.sha256}", f"made_from: {'a' * 64}"))
    with pytest.raises(BackendError, match=r"posenet\.int8\.yaml: was made from another posenet\.onnx"):
        open_backend(gate.folder, "posenet", BackendConfig(kind="openvino", precision="int8"))
