"""Which back end runs a network, and what is said when none can."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig, LocalizerConfig
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference import choice
from localizer_ros.inference.choice import automatic_backend
from localizer_ros.inference.model_card import (
    card_path,
)
from localizer_ros.inference.open_backend import BACKENDS, open_backend
from localizer_ros.inference.processor import cpu_name, has_native_bf16
from localizer_ros.inference.tensorrt_library import TensorRtMissing, open_library
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene
from localizer_ros.training.export_scene import export_scene

pytestmark = pytest.mark.slow


def test_a_changed_file_is_named(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    onnx = scene / "networks" / "posenet.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    with pytest.raises(SceneError, match=r"posenet\.onnx: has changed"):
        Scene.load(scene)
    with pytest.raises(SceneError, match=r"posenet\.onnx: has changed"):
        open_backend(scene / "networks", "posenet", BackendConfig(kind="openvino"))
    onnx.unlink()
    with pytest.raises(SceneError, match=r"posenet\.onnx: is missing"):
        Scene.load(scene)
    card_path(scene / "networks", "posenet").write_text("{}")
    with pytest.raises(BackendError, match=r"posenet\.yaml: network, inputs, .* missing in the model card"):
        open_backend(scene / "networks", "posenet", BackendConfig())


def test_wrong_inputs_are_said(tiny_scene: Path) -> None:
    folder = tiny_scene / "networks"
    backend = open_backend(folder, "posenet", BackendConfig(kind="openvino"))
    with pytest.raises(BackendError, match="image is missing"):
        backend.run({})
    with pytest.raises(BackendError, match="expected shape"):
        backend.run({"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_what_a_precision_needs_is_said(
    tiny_scene: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tiny_scene / "networks"
    with pytest.raises(BackendError, match=r"no int8 network in this scene; .localizer export"):
        open_backend(folder, "posenet", BackendConfig(kind="openvino", precision="int8"))
    with pytest.raises(BackendError, match="torch: does not run int8"):
        open_backend(folder, "posenet", BackendConfig(kind="torch", precision="int8"))
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: An old one\nflags\t\t: fpu avx2 avx512f\n")
    monkeypatch.setattr("localizer_ros.inference.processor.CPUINFO", cpuinfo)
    for kind in ("openvino", "torch"):
        with pytest.raises(BackendError, match=rf"{kind}: this processor \(An old one\) has no bfloat16"):
            open_backend(folder, "posenet", BackendConfig(kind=kind, precision="bf16"))


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd", False),
        ("flags\t\t: avx512bw", False),
        ("nothing", False),
    ],
)
def test_bfloat16_counts_only_where_the_processor_says_so(tmp_path: Path, line: str, native: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert has_native_bf16(cpuinfo) == native
    assert not has_native_bf16(tmp_path / "none") and cpu_name(tmp_path / "none")


def test_tensorrt_where_it_is_missing_says_so_and_what_can_run(tiny_scene: Path) -> None:
    try:
        open_library(lean=False)
    except TensorRtMissing:
        with pytest.raises(BackendError, match=r"^tensorrt: .*; backend.kind openvino can run here"):
            open_backend(tiny_scene / "networks", "posenet", BackendConfig(kind="tensorrt"))
    else:  # on a machine with a GPU the real thing must pass the gate
        assert (
            export_scene(Scene.load(tiny_scene), "tensorrt", BackendConfig(kind="tensorrt"), None).t_m < 1e-3
        )


def test_automatic_is_the_only_candidate_or_the_faster_measured_once(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, config = tmp_path / "scene" / "networks", BackendConfig(threads=1)
    shutil.copytree(tiny_scene / "networks", folder)
    assert automatic_backend(folder, "posenet", config) in BACKENDS
    monkeypatch.setattr(choice, "candidates", lambda precision: ["tensorrt", "openvino"])
    caplog.set_level(logging.INFO, "localizer_ros")
    # TensorRT cannot run here: it counts as one that was tried.
    assert automatic_backend(folder, "posenet", config) == "openvino"
    assert "measured once on posenet: tensorrt not (tensorrt: " in caplog.text
    path = folder.parent / "engines" / choice.TIMES
    measured = json.loads(path.read_text())
    ((_, times),) = measured.items()
    assert times["openvino"] > 0.0
    # What is known is not measured again; of what is known the faster one is taken.
    monkeypatch.setattr(choice, "_measured_apart", lambda *_: pytest.fail("measured again"))
    for tensorrt, chosen in ((1e-3, "tensorrt"), (1e6, "openvino")):
        path.write_text(json.dumps({key: {**times, "tensorrt": tensorrt} for key in measured}))
        assert automatic_backend(folder, "posenet", config) == chosen
    # Another setting, and a file that is none or not there, are measured.
    monkeypatch.setattr(choice, "_measured_apart", lambda folder, name, config, kind: float(len(kind)))
    assert automatic_backend(folder, "posenet", BackendConfig(threads=2)) == "tensorrt"
    assert len(json.loads(path.read_text())) == 2
    path.write_text("{")
    assert automatic_backend(folder, "posenet", config) == "tensorrt"
    shutil.rmtree(path.parent)
    assert automatic_backend(folder, "posenet", config) == "tensorrt"
    monkeypatch.setattr(choice, "_measured_apart", lambda folder, name, config, kind: f"{kind}: broken")
    with pytest.raises(BackendError, match="tensorrt: broken; openvino: broken"):
        automatic_backend(folder, "posenet", BackendConfig(threads=3))


def test_times_of_a_scene_that_cannot_be_written_count_and_new_ones_are_kept_elsewhere(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Callable[[Path], None]
) -> None:
    folder = tmp_path / "scene" / "networks"
    shutil.copytree(tiny_scene / "networks", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "candidates", lambda precision: ["tensorrt", "openvino"])
    times = {"tensorrt": 1.0, "openvino": 2.0}

    def choose(threads: int) -> list[str]:
        """What is measured, and chosen at last."""
        measured: list[str] = []

        def measure(folder: Path, name: str, config: BackendConfig, kind: str) -> float:
            measured.append(kind)
            return times[kind]

        monkeypatch.setattr(choice, "_measured_apart", measure)
        chosen = automatic_backend(folder, "posenet", BackendConfig(threads=threads))
        return [*measured, chosen]

    assert choose(1)[-1] == "tensorrt"
    lock(folder.parent)
    times["openvino"] = 0.5
    assert choose(1) == ["tensorrt"]
    assert choose(2)[-1] == "openvino"
    assert choose(2) == ["openvino"] and choose(1) == ["tensorrt"]


def test_a_scene_can_be_moved_and_its_cache_deleted(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "elsewhere"
    shutil.copytree(tiny_scene, scene)
    shutil.rmtree(scene / "engines", ignore_errors=True)
    open_localizer(scene, LocalizerConfig()).close()
    assert str(tiny_scene.parent) not in (scene / "scene.yaml").read_text()
