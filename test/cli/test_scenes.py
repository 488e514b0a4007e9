"""Commands that make something of a scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from command_line import localizer, one_line

from localizer_ros.inference.tensorrt_library import TensorRtMissing, open_library


def test_a_map_that_fails_at_once_leaves_nothing_and_weights_are_not_ignored(
    world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scene"
    world.write_text(world.read_text().replace("duration_s: 0.5", "duration_s: 0.1"))
    settings = ("--method", "posenet", "--set", "training.augmentation.virtual_move=0")
    assert "1 frames have a pose" in one_line(localizer("map", world, "--out", out, *settings))
    weights = ("--weights", tmp_path / "none.safetensors")
    assert "trains no network" in one_line(localizer("map", world, "--out", out, *weights))
    assert "none.safetensors" in one_line(
        localizer("map", world, "--out", out, "--method", "posenet", *weights)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["world.yaml"]


def test_what_is_wrong_with_a_recording_is_said_before_it_is_mapped(world: Path, tmp_path: Path) -> None:
    world.write_text(world.read_text() + "light: 0.01\n")
    result = localizer("map", world, "--out", tmp_path / "scene")
    assert result.exit_code == 1
    *said, error = result.stderr.splitlines()
    assert any("of the frames are black" in line for line in said)
    assert error.startswith("localizer: ")


@pytest.mark.parametrize("entry", ["files", "camera", "training", "method", "map_frame"])
def test_a_damaged_scene_names_its_manifest(entry: str, tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    manifest = yaml.safe_load((scene / "scene.yaml").read_text())
    for wrong in (None, [1], {1: 2} if entry == "files" else 5):
        (scene / "scene.yaml").write_text(yaml.safe_dump(manifest | {entry: wrong}))
        assert "scene" in one_line(localizer("info", scene))


@pytest.mark.slow
def test_export_lists_what_a_robot_with_its_back_end_needs(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    exported = localizer("export", scene, "--backend", "openvino").stdout
    assert "posenet.onnx" in exported and ".safetensors" not in exported
    # What OpenVINO compiled is of no use elsewhere.
    assert list((scene / "engines").rglob("*.blob")) and ".blob" not in exported
    exported = localizer("export", scene, "--backend", "torch").stdout
    assert "posenet.safetensors" in exported and ".onnx" not in exported and ".blob" not in exported


@pytest.mark.slow
def test_a_missing_tensorrt_is_said_before_a_network_is_quantised(
    tiny_scene: Path, world: Path, tmp_path: Path
) -> None:
    try:
        open_library(lean=False)
    except TensorRtMissing as error:
        scene = tmp_path / "scene"
        shutil.copytree(tiny_scene, scene)
        asked = ("export", scene, "--backend", "tensorrt", "--precision", "int8", "--source", world)
        assert str(error) in one_line(localizer(*asked))
        assert not list((scene / "networks").glob("*.int8.*"))
    else:
        pytest.skip("this machine has TensorRT")


def test_a_time_budget_without_training_is_an_error(world: Path, tmp_path: Path) -> None:
    refused = localizer("map", world, "--out", tmp_path / "scene", "--time-budget", "5min")
    assert "trains no network; leave --time-budget out" in one_line(refused)
