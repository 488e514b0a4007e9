"""What the commands print, and how known errors end."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import localizer, one_line

from localizer_ros.cli import console
from localizer_ros.core.extras import how_to_install
from localizer_ros.core.types import SourceError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SourceError("drive: two\n  lines"), 1, "localizer: drive: two lines\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out"),
            1,
            "localizer: out: No space left on device\n",
        ),
        (
            FileExistsError(errno.EEXIST, "File exists", "out"),
            1,
            "localizer: out: is a file, expected a folder\n",
        ),
        (OSError("odd"), 1, "localizer: odd\n"),
        (BrokenPipeError(), 1, ""),
        (
            ModuleNotFoundError("No module named 'rclpy'", name="rclpy"),
            1,
            "localizer: rclpy is not installed: source a ROS 2 distribution, or pip install 'localizer_ros[ros]'\n",
        ),
        (KeyboardInterrupt(), 130, "localizer: interrupted\n"),
        (KeyboardInterrupt("half is kept"), 130, "localizer: interrupted; half is kept\n"),
    ],
)
def test_known_errors_end_in_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @console.command
    def failing() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        failing()
    assert (ended.value.exit_code, capsys.readouterr().err) == (code, line)


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch.nn", "train"), ("onnxruntime", "learned"), ("rerun", "view"), ("sensor_msgs.msg", "ros")],
)
def test_a_missing_module_names_the_extra_that_brings_it(module: str, extra: str) -> None:
    assert f"localizer_ros[{extra}]" in (how_to_install(module) or "")
    assert how_to_install("numpy") is None


def test_other_errors_are_not_hidden() -> None:
    @console.command
    def failing() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()


def test_facts_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_facts(
        {
            "frames": 3,
            "fps": 29.97003,
            "camera": {"model": "plumb_bob", "splits": []},
            "names": list(range(20)),
            "K": [208.5160596545929, 0.0, 159.5],
            "known": True,
            "jumps": [{"at": "a", "metres": 1.23456, "why": None}],
            "odometry": None,
        }
    )
    assert capsys.readouterr().out.splitlines() == [
        "frames: 3",
        "fps: 29.97",
        "camera:",
        "  model: plumb_bob",
        "  splits: none",
        "names: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (20)",
        "K: 208.516, 0, 159.5",
        "known: yes",
        "jumps:",
        "  at a, metres 1.235",
        "odometry: none",
    ]


def test_json_goes_to_a_file_or_alone_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.write_json(None, "{}") is True
    assert console.write_json(tmp_path / "result.json", '{"a": 1}\n\n') is True
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 1}
    assert capsys.readouterr().out == ""
    assert console.write_json(Path("-"), '{"a": 1}') is False
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_room_for_results_is_made_before_the_work(tmp_path: Path) -> None:
    console.make_room(tmp_path / "new" / "result.json", tmp_path / "report" / "deep")
    assert (tmp_path / "new").is_dir() and (tmp_path / "report" / "deep").is_dir()
    console.make_room(Path("-"))
    with pytest.raises(IsADirectoryError):
        console.make_room(tmp_path / "new")
    # A result that is there stays until there is another, and a trial leaves nothing.
    (tmp_path / "old.json").write_text("{}")
    console.make_room(tmp_path / "old.json", new=tmp_path / "later" / "scene")
    assert (tmp_path / "old.json").read_text() == "{}"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "later", "new", "old.json", "report"]
    with pytest.raises(OSError, match="/proc/1") as failed:
        console.make_room(new=Path("/proc/1/scene"))
    assert failed.value.filename == "/proc/1"


# A process of its own: SIGTERM ends the whole of one that has its commands in another thread than the main one.
SHUT_DOWN = """
import os, signal, time, typer
from localizer_ros.cli import console

@console.command
def working():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20.0)
    finally:
        print("cleared")

before = signal.getsignal(signal.SIGTERM)
try:
    working()
except typer.Exit as ended:
    print(ended.exit_code, signal.getsignal(signal.SIGTERM) is before)
"""


def test_a_shutdown_ends_a_command_as_ctrl_c_does() -> None:
    ended = subprocess.run([sys.executable, "-c", SHUT_DOWN], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "cleared\n143 True\n"
    assert ended.stderr == "localizer: interrupted\n"


def test_progress_away_from_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress_bar() as progress:
        for step in range(100):
            now[0] = 0.1 * step
            progress("features", step, 100)
        now[0] += 3.0
        progress("matches", 1, 0)
    assert capsys.readouterr().err.splitlines() == ["features: 20/100", "features: 70/100", "matches: 1"]


def test_a_viewer_that_is_not_installed_is_one_line_and_one_that_is_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[list[str], bool]] = []

    def run_scene(scene: Path, arguments: list[str], view: bool) -> int:
        asked.append((arguments, view))
        return 0

    monkeypatch.setattr("localizer_ros.ros.main.run_scene", run_scene)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = one_line(localizer("run", "scenes/room", "--view"))
    assert "pip install 'localizer_ros[view]'" in said and not asked
    assert localizer("run", "scenes/room", "-r", "image:=/camera").exit_code == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert localizer("run", "scenes/room", "--view", "-r", "image:=/camera").exit_code == 0
    assert asked == [(["-r", "image:=/camera"], False), (["-r", "image:=/camera"], True)]
