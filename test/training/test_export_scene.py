"""Engines of a scene in every precision: made, judged by the scene's own images, or in one line what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.engine_cache import engine_name, openvino_folder
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.inference.processor import has_gpu, has_native_bf16
from localizer_ros.scene.bundle import Scene
from localizer_ros.training import precision_gate
from localizer_ros.training.export_scene import export_scene
from localizer_ros.training.precision_gate import Answers, PrecisionGate

pytestmark = pytest.mark.slow


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network trained for a moment errs by chance, and so does what is judged by its errors."""
    monkeypatch.setattr(precision_gate, "MOST_ABOVE", 1.5)
    monkeypatch.setattr(precision_gate, "_MOST_MOVED", 1.0)


def left_by_others(scene: Scene) -> list[Path]:
    """Engines in a scene's cache that nothing in it is run by."""
    engines = scene.path / "engines"
    files = [
        engines / "openvino" / "1.blob",
        engines / "openvino" / f"posenet.fp16-{'0' * 20}" / "2.blob",
        engines / engine_name("resnet", "key"),
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"compiled")
    return files


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("backend", ["onnx", "openvino", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_each_precision_is_made_or_one_line_says_what_is_missing(
    backend: str, precision: str, scene: Scene, tiny_source: FrameSource
) -> None:
    kind = "openvino" if backend == "onnx" else backend
    missing = {
        "has no bfloat16 arithmetic": (backend, precision) == ("openvino", "bf16") and not has_native_bf16(),
        "no NVIDIA driver|not installed|finds no GPU": backend == "tensorrt" and not has_gpu(),
    }
    expected = "|".join(said for said, is_missing in missing.items() if is_missing)
    config = BackendConfig(kind=kind, precision=precision)
    networks = scene.path / "networks"
    path = card_path(networks, f"posenet.{precision}")
    left_before = left_by_others(scene)
    if expected:
        with pytest.raises(BackendError, match=expected) as raised:
            export_scene(scene, backend, config, tiny_source)
        # Said before anything is made.
        assert "\n" not in str(raised.value) and not path.exists()
        return
    result = export_scene(scene, backend, config, tiny_source)
    card = read_card(path, ModelCard)
    assert result.card == card and not card.single_precision
    assert card.parity == {backend: pytest.approx((result.t_m, result.r_deg), rel=1e-3)}
    assert 0.0 < result.t_m <= card.accuracy["moved_most_t_m"] + 1e-4
    network = networks / f"posenet.{precision}.onnx"
    assert network in result.files and sha256_of(network) == card.sha256
    assert all(file.exists() for file in result.files)
    # What a robot needs, and no engine of anything else; of what is compiled nothing stays that nobody will run.
    assert backend == "tensorrt" or {file.parent for file in result.files} == {networks}
    assert not any(file.exists() for file in left_before)
    cards = [read_card(file, ModelCard) for file in networks.glob("*.yaml")]
    compiled = {file.parent for file in (scene.path / "engines" / "openvino").rglob("*.blob")}
    assert compiled <= {openvino_folder(scene.path / "engines", card) for card in cards}
    Scene.load(scene.path)  # what is exported is no change of the scene
    open_backend(scene.path / "networks", "posenet", BackendConfig(kind=kind, precision=precision)).close()


@pytest.mark.usefixtures("lenient")
def test_the_card_keeps_what_was_checked_of_one_file(scene: Scene, tiny_source: FrameSource) -> None:
    half = BackendConfig(kind="openvino", precision="fp16")
    for backend in ("openvino", "onnx", "torch"):
        config = BackendConfig(kind="torch", precision="fp16") if backend == "torch" else half
        card = export_scene(scene, backend, config, tiny_source).card
    assert card is not None and set(card.parity) == {"openvino", "onnx", "torch"}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_lower_precision_is_not_judged_by_noise(scene: Scene, precision: str) -> None:
    with pytest.raises(BackendError, match=rf"onnx {precision}: .* give the recording .* with --source"):
        export_scene(scene, "onnx", BackendConfig(kind="openvino", precision=precision), None)
    # In single precision noise will do.
    assert export_scene(scene, "onnx", BackendConfig(kind="openvino"), None).t_m < 1e-3


@pytest.mark.usefixtures("lenient")
def test_a_back_end_that_answers_otherwise_than_the_file_is_refused(
    scene: Scene, tiny_source: FrameSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PrecisionGate.answers

    def astray(gate: PrecisionGate, name: str, config: BackendConfig) -> Answers:
        answers = real(gate, name, config)
        if config.precision == "fp32":
            return answers
        return Answers([T and T @ T @ T for T in answers.poses], answers.motions)

    monkeypatch.setattr(PrecisionGate, "answers", astray)
    half = BackendConfig(kind="openvino", precision="fp16")
    with pytest.raises(BackendError, match=r"openvino fp16: differs from torch by .* use fp32") as raised:
        export_scene(scene, "openvino", half, tiny_source)
    assert "\n" not in str(raised.value) and "moved_median_t_m" in str(raised.value)
    card = read_card(card_path(scene.path / "networks", "posenet.fp16"), ModelCard)
    assert "openvino" not in card.parity and np.isfinite(card.accuracy["moved_median_t_m"])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_scene_that_cannot_be_written_is_told_before_the_work(
    scene: Scene, tiny_source: FrameSource, precision: str, lock: Callable[[Path], None]
) -> None:
    lock(scene.path)
    before = sorted(scene.path.rglob("*"))

    def progress(stage: str, done: int, total: int) -> None:
        pytest.fail(f"began: {stage}")

    config = BackendConfig(kind="openvino", precision=precision)
    with pytest.raises(
        SceneError, match=r"networks: cannot be written \(Read-only .*, or export a copy of the scene$"
    ):
        export_scene(scene, "openvino", config, tiny_source, progress)
    assert sorted(scene.path.rglob("*")) == before
