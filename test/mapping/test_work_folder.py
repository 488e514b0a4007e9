"""What an interrupted run leaves is gone on from, or given up only when somebody says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_recordings import Changed

from localizer_ros.cli import console
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, SourceError
from localizer_ros.datasets.derived import turned
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.work_folder import is_begun, work_folder


def interrupted(out: Path, source: FrameSource) -> None:
    """Some work, and Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), work_folder(out, source, "all", "a: 1") as work:
        (work / "features").write_text("hours of it")
        raise KeyboardInterrupt


def test_the_same_goes_on_and_others_are_asked(tiny_source: FrameSource, tmp_path: Path) -> None:
    out = tmp_path / "scene"
    interrupted(out, tiny_source)
    assert is_begun(out)
    with pytest.raises(ConfigError, match=r"other settings; give the same again.*--no-resume"):
        work_folder(out, tiny_source, "all", "a: 2").__enter__()
    with work_folder(out, tiny_source, "all", "a: 1") as work:
        assert (work / "features").read_text() == "hours of it"
    assert not work.exists()


@pytest.mark.parametrize("what", ["images", "odometry", "place of the camera", "topics"])
def test_what_was_read_otherwise_is_not_gone_on_with(
    tiny_source: FrameSource, tmp_path: Path, what: str
) -> None:
    interrupted(tmp_path / "scene", tiny_source)
    other = Changed(tiny_source, image=lambda pixels: pixels[::-1] if what == "images" else pixels)
    if what == "odometry":
        other.odometry = None
    elif what == "place of the camera":
        other.T_base_cam = SE3.identity()
    elif what == "topics":
        other.details = {"image_topic": "/right"}
    with pytest.raises(ConfigError, match="other frames or weights"):
        work_folder(tmp_path / "scene", other, "all", "a: 1").__enter__()


def test_another_file_of_the_same_name_is_not_gone_on_with(tiny_source: FrameSource, tmp_path: Path) -> None:
    source = Changed(tiny_source)
    source.path = tmp_path / "drive.mp4"
    source.path.write_bytes(b"1")
    interrupted(tmp_path / "scene", source)
    source.path.write_bytes(b"12")
    with pytest.raises(ConfigError, match="other frames or weights"):
        work_folder(tmp_path / "scene", source, "all", "a: 1").__enter__()


def test_starting_over_is_said_to(tiny_source: FrameSource, tmp_path: Path) -> None:
    out = tmp_path / "scene"
    interrupted(out, tiny_source)
    with work_folder(out, tiny_source, "all", "a: 2", resume=False) as work:
        assert not (work / "features").exists()


def test_two_do_not_work_on_one_scene(tiny_source: FrameSource, tmp_path: Path) -> None:
    out = tmp_path / "scene"
    with work_folder(out, tiny_source, "all", "a: 1") as work:
        for resume in (True, False):
            with pytest.raises(ConfigError, match="scene: another process is writing it"):
                work_folder(out, tiny_source, "all", "a: 1", resume).__enter__()
        assert work.is_dir()


def test_a_failure_before_any_work_leaves_nothing(tiny_source: FrameSource, tmp_path: Path) -> None:
    with pytest.raises(SourceError), work_folder(tmp_path / "scene", tiny_source, "all", ""):
        raise SourceError("no poses")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_says_where_work_is_kept(
    tiny_source: FrameSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a scene"
    monkeypatch.setattr("sys.argv", ["x", "map", "drive", "--out", str(out), "--no-resume"])
    with pytest.raises(KeyboardInterrupt) as stopped, console.going_on(out, False):
        interrupted(out, tiny_source)
        raise KeyboardInterrupt
    assert str(stopped.value) == (
        f"what was done is kept in {tmp_path}/.a scene.work; to go on: localizer map drive --out '{out}'"
    )
    with console.going_on(out, True):
        pass
    assert "going on where an interrupted call stopped" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["poses", "times", "camera", "convention"])
def test_other_poses_times_or_cameras_are_another_recording(
    tiny_source: FrameSource, tmp_path: Path, changed: str
) -> None:
    interrupted(tmp_path / "scene", tiny_source)
    records = list(tiny_source.records)
    if changed == "poses":
        records[3] = replace(records[3], T_map_cam=SE3(np.eye(3), np.ones(3)))
    if changed == "times":
        records[3] = replace(records[3], stamp_ns=records[3].stamp_ns + 1)
    camera = tiny_source.camera.scaled(320, 240) if changed == "camera" else None
    other = Changed(tiny_source, records, camera=camera)
    source = turned(other, "forward") if changed == "convention" else other
    with pytest.raises(ConfigError, match="begun with other frames"):
        work_folder(tmp_path / "scene", source, "all", "a: 1").__enter__()
