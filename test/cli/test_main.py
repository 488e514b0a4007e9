"""The command line as a user meets it: help with examples, exit codes, one line for each known error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import localizer, one_line

from localizer_ros.cli.main import COMMANDS


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
        (
            ("export", "nowhere", "--backend", "auto"),
            "--backend: expected torch, openvino, tensorrt, onnx, got 'auto'",
        ),
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


def test_bad_usage_is_exit_code_2() -> None:
    assert localizer("map").exit_code == 2
    assert localizer("eval", "a", "b", "--limit", "0").exit_code == 2
    assert localizer("nonsense").exit_code == 2


def test_version() -> None:
    assert localizer("--version").output.startswith("localizer 0.")


@pytest.mark.slow
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
    # A network of one epoch knows its own sigma to be large: too large to be published, and to be refined.
    unsure = ["--no-refine", "--set", "status.lost_sigma_deg=180"]
    evaluated = localizer("eval", scene, drive, *unsure, "--json", json_file, "--report", report)
    assert evaluated.exit_code == 0, evaluated.output
    result = json.loads(json_file.read_text())
    assert result["frames"] == result["answered"] == 24
    assert result["nearest_neighbour"]["median_t_m"] is not None
    assert (report / "report.html").stat().st_size > 10_000

    answers = tmp_path / "answers"
    replayed = localizer("replay", scene, drive, "--out", answers)
    assert replayed.exit_code == 0, replayed.output
    assert localizer("info", answers).exit_code in (0, 1)  # a bag of answers has no images
