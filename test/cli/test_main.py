"""The command line as a user meets it: help with examples, exit codes, one line for each known error, JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from localizer_ros.cli.main import COMMANDS, app


def localizer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_starting_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'cv2', 'yaml', 'msgspec', 'rich.console', 'torch', 'rclpy'}"
    script = f"import localizer_ros.cli.main, sys; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stdout + result.stderr


def test_python_runs_the_package_and_its_main_module() -> None:
    for module in ("localizer_ros.cli", "localizer_ros.cli.main"):
        result = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
        assert result.stdout.startswith("localizer 0."), result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = localizer(command, "--help")
    assert result.exit_code == 0
    assert f"Example: localizer {command}" in " ".join(result.output.replace("`", "").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "nowhere"), "nowhere: does not exist"),
        (("map", "nowhere", "--out", "scene"), "nowhere: does not exist"),
        (("map", ".", "--out", "scene", "--set", "training.epocs=3"), "epocs"),
        (("map", ".", "--out", "scene", "--set", "training.epochs=0"), "training.epochs"),
        (("map", ".", "--out", "scene", "--method", "magic"), "magic"),
        (("map", ".", "--out", "scene", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("eval", "nowhere", "."), "nowhere: no such scene"),
        (("export", "nowhere", "--backend", "openvino"), "nowhere: no such scene"),
        (("simulate", "out", "--set", "fps=-1"), "fps"),
        (("simulate", "out", "--storage", "tape"), "tape"),
    ],
)
def test_known_errors_are_one_line_and_exit_code_1(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    # In a process of its own: what a user sees, an empty folder being where they are.
    result = subprocess.run(
        [sys.executable, "-m", "localizer_ros.cli.main", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("localizer: ")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def one_line(result: Result) -> str:
    """Standard error of a command that ended with a known error."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("localizer: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A recording that takes no time to make."""
    file = tmp_path / "world.yaml"
    file.write_text("width_px: 64\nheight_px: 64\nfps: 8\nduration_s: 0.5\n")
    return file


def test_what_cannot_be_written_is_one_line(world: Path, tiny_scene: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    for arguments in (
        ("simulate", blocked / "out", "--world", world),
        ("convert", world, blocked / "out", "--to", "tum"),
        ("convert", world, blocked / "out", "--to", "kapture"),
        ("map", world, "--out", blocked / "out"),
        ("replay", tiny_scene, world, "--out", blocked / "out"),
        ("view", tiny_scene, "--out", blocked / "out.png"),
        ("eval", tiny_scene, world, "--report", blocked),
        ("eval", tiny_scene, world, "--json", blocked / "out.json"),
        ("eval", tiny_scene, world, "--json", tmp_path),
        ("bench", tiny_scene, world, "--json", blocked / "out.json"),
    ):
        line = one_line(localizer(*arguments))
        assert str(tmp_path) in line and "Errno" not in line and "File exists" not in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "world.yaml"]


def test_topics_of_a_bag_are_chosen(world: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    assert localizer("simulate", bag, "--world", world).exit_code == 0
    facts = localizer(
        "info", bag, "--json", "--topic", "ground_truth=none", "--topic", "odometry=none"
    ).stdout
    assert json.loads(facts)["ground_truth"]["name"] == "none" and json.loads(facts)["odometry"] is None
    assert "/camera/image_raw" in one_line(localizer("info", bag, "--topic", "image=/left"))
    assert "expected e.g." in one_line(localizer("info", bag, "--topic", "image"))
    assert "unknown topic option" in one_line(localizer("info", bag, "--topic", "sound=/x"))
    assert "not a bag" in one_line(localizer("info", world, "--topic", "image=/left"))


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
    assert any(line.startswith("recording: images are very dark") for line in said)
    assert error.startswith("localizer: ")


def test_what_a_format_has_no_place_for_is_said(world: Path, tmp_path: Path) -> None:
    assert "odometry" in localizer("convert", world, tmp_path / "tum", "--to", "tum").stderr
    assert "left out" not in localizer("convert", world, tmp_path / "bag", "--to", "bag").stderr


@pytest.mark.parametrize("entry", ["files", "camera", "training", "method", "map_frame"])
def test_a_damaged_scene_names_its_manifest(entry: str, tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    manifest = yaml.safe_load((scene / "scene.yaml").read_text())
    for wrong in (None, [1], {1: 2} if entry == "files" else 5):
        (scene / "scene.yaml").write_text(yaml.safe_dump(manifest | {entry: wrong}))
        assert "scene" in one_line(localizer("info", scene))


def test_export_lists_the_engines_of_its_back_end_only(tiny_scene: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene, scene)
    assert ".blob" in localizer("export", scene, "--backend", "openvino").stdout
    exported = localizer("export", scene, "--backend", "torch").stdout
    assert "posenet.safetensors" in exported and ".blob" not in exported


def test_bad_usage_is_exit_code_2() -> None:
    assert localizer("map").exit_code == 2
    assert localizer("eval", "a", "b", "--limit", "0").exit_code == 2
    assert localizer("nonsense").exit_code == 2


def test_version() -> None:
    assert localizer("--version").output.startswith("localizer 0.")


def test_simulate_info_convert_map_eval_replay(tmp_path: Path) -> None:
    """One walk through the commands on one small drive."""
    drive = tmp_path / "drive"
    size = ["--set", "width_px=160", "--set", "height_px=120", "--set", "fps=8", "--set", "duration_s=3"]
    assert localizer("simulate", drive, *size).exit_code == 0
    facts = json.loads(localizer("info", drive, "--json").stdout)
    assert facts["frames"] == 24 and facts["format"] == "rosbag"
    assert localizer("convert", drive, tmp_path / "tum", "--to", "tum").exit_code == 0
    assert json.loads(localizer("info", tmp_path / "tum", "--json").stdout)["frames"] == 24

    scene = tmp_path / "scene"
    network = ["encoder=mobilenet_v3_small", "width_px=96", "height_px=64", "hidden=16"]
    settings = [s for pair in network for s in ("--set", f"network.{pair}")]
    settings += ["--set", "training.epochs=1", "--set", "training.batch_size=8"]
    settings += ["--set", "training.augmentation.virtual_move=0"]
    mapped = localizer("map", drive, "--method", "posenet", "--out", scene, *settings)
    assert mapped.exit_code == 0, mapped.output
    assert json.loads(localizer("info", scene, "--json").stdout)["method"] == "posenet"

    json_file, report = tmp_path / "result.json", tmp_path / "report"
    evaluated = localizer("eval", scene, drive, "--json", json_file, "--report", report)
    assert evaluated.exit_code == 0, evaluated.output
    result = json.loads(json_file.read_text())
    assert result["frames"] == result["answered"] == 24
    assert result["nearest_neighbour"]["median_t_m"] is not None
    assert (report / "report.html").stat().st_size > 10_000

    answers = tmp_path / "answers"
    replayed = localizer("replay", scene, drive, "--out", answers)
    assert replayed.exit_code == 0, replayed.output
    assert localizer("info", answers).exit_code in (0, 1)  # a bag of answers has no images
