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
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import export_scene
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.scene.bundle import Scene
from localizer_ros.training import quantize
from localizer_ros.training.data import load_posed_images
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
    monkeypatch.setattr(quantize, "_MOST_MOVED", 1.0)
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
        assert card.accuracy[f"int8_mean_{key}"] <= 1.5 * card.accuracy[f"fp32_mean_{key}"]
        assert 0.0 < card.accuracy[f"moved_median_{key}"] <= card.accuracy[f"fp32_median_{key}"]
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
    judged: list[str] = []
    real = quantize._Gate.answers

    def second_is_exact(gate: quantize._Gate, name: str) -> quantize._Answers:
        judged.append(name)
        answers = real(gate, "posenet")
        if len(judged) == 2:  # a metre off
            beside = SE3(np.eye(3), np.array([1.0, 0.0, 0.0]))
            answers = quantize._Answers([T and beside @ T for T in answers.poses], answers.motions)
        return answers

    monkeypatch.setattr(quantize._Gate, "answers", second_is_exact)
    card = quantize_scene(scene, tiny_source)
    assert judged == ["posenet", "posenet.int8", "posenet.int8"]
    assert card.single_precision
    done = multiplied_in_int8(networks / card.network)
    assert done and not set(card.single_precision) & set(done)
    # A gate that nothing passes.
    monkeypatch.setattr(quantize._Gate, "answers", real)
    monkeypatch.setattr(quantize, "_MOST_MOVED", 0.0)
    monkeypatch.setattr(quantize, "_PRECISE_SHARES", (0.0, 0.5))
    caplog.set_level(logging.WARNING, "localizer_ros")
    card = quantize_scene(scene, tiny_source)
    assert card.single_precision == (EVERY_LAYER,) and card.network == "posenet.onnx"
    assert "the network stays in fp32" in caplog.text and "moved_median_t_m" in caplog.text
    assert not (networks / "posenet.int8.onnx").exists()
    backend = open_backend(networks, "posenet", BackendConfig(kind="openvino", precision="int8"))
    backend.close()


def at(x_m: float, yaw_deg: float = 0.0) -> SE3:
    return SE3.exp(np.array([0.0, 0.0, np.radians(yaw_deg), 0.0, 0.0, 0.0])) @ SE3(
        np.eye(3), np.array([x_m, 0.0, 0.0])
    )


TRUTH = [at(0.0) for _ in range(20)]
# Off by 1 m and 10 deg, once by 2 m and 20 deg.
BEFORE: list[SE3 | None] = [at(1.0, 10.0) for _ in range(19)] + [at(2.0, 20.0)]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BEFORE, []),
        # Moves of a tenth of the error, some to the better and some to the worse.
        ([at(1.0 + 0.1 * (-1) ** i, 10.0 + (-1) ** i) for i in range(19)] + [at(2.0, 20.0)], []),
        # All to the worse, by six percent.
        ([at(1.06, 10.0) for _ in range(19)] + [at(2.12, 20.0)], ["int8_mean_t_m"]),
        ([at(1.0, 10.6) for _ in range(19)] + [at(2.0, 21.2)], ["int8_mean_r_deg"]),
        # To the better, but so far that it is chance.
        ([at(0.6, 10.0) for _ in range(19)] + [at(2.0, 20.0)], ["moved_median_t_m"]),
        # One frame that is thrown to another place, as far off as before.
        ([at(1.0, 10.0) for _ in range(19)] + [at(-1.0, 20.0)], ["moved_most_t_m"]),
        ([*BEFORE[:18], None, BEFORE[19]], []),
        ([*BEFORE[:10], *[None] * 10], ["lost"]),
    ],
)
def test_the_gate_looks_at_errors_moves_and_answers(after: list[SE3 | None], said: list[str]) -> None:
    figures, worse = quantize._accuracy(("lost", "t_m", "r_deg"), TRUTH, BEFORE, after)
    assert worse == said
    assert figures["lost"] == pytest.approx(sum(T is None for T in after) / 20)


def test_a_network_without_answers_cannot_be_judged(tiny_source: FrameSource) -> None:
    data = load_posed_images(tiny_source, tiny_source.read(0).camera).subset(np.arange(3))
    gate = quantize._Gate(Path(), "posenet", data)
    nothing = quantize._Answers([None] * 3, [None] * 3)
    assert gate.compared(nothing, nothing)[1] == ["lost"]
    # Without a motion head there are no motions to judge.
    figures, worse = gate.compared(quantize._Answers(list(data.poses), [None] * 3), nothing)
    assert worse == ["lost"] and figures == {"lost": 1.0}


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
