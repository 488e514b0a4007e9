"""Which back end runs a network, and what is said when none can."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig, LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import BackendError, ConfigError, SceneError
from localizer_ros.export import export_scene
from localizer_ros.inference.backend import automatic_backend
from localizer_ros.inference.model_card import (
    card_path,
)
from localizer_ros.inference.open_backend import BACKENDS, open_backend
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene

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


def test_a_precision_that_no_back_end_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match="int8"):
        config_from_dict(BackendConfig, {"precision": "int8"})


def test_without_tensorrt_the_error_names_what_auto_would_take(tiny_scene: Path) -> None:
    pytest.importorskip("openvino")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(BackendError, match=f"not installed.*{automatic_backend()}"):
            open_backend(tiny_scene / "networks", "posenet", BackendConfig(kind="tensorrt"))
    else:  # on a machine with a GPU the real thing must pass the gate
        assert export_scene(Scene.load(tiny_scene), BackendConfig(kind="tensorrt"), None).t_m < 1e-3


def test_automatic_back_end_is_one_that_exists() -> None:
    assert automatic_backend() in BACKENDS


def test_a_scene_can_be_moved_and_its_cache_deleted(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "elsewhere"
    shutil.copytree(tiny_scene, scene)
    shutil.rmtree(scene / "engines", ignore_errors=True)
    open_localizer(scene, LocalizerConfig()).close()
    assert str(tiny_scene.parent) not in (scene / "scene.yaml").read_text()
