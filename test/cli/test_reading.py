"""The options of how SOURCE is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import localizer, one_line
from small_recordings import picture, write

from localizer_ros.cli.reading import Reading
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.images import encode_png


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Three images."""
    for i in range(3):
        write(tmp_path / "stills" / f"{i}.png", encode_png(picture(i)))
    return tmp_path / "stills"


def info(*arguments: str | Path) -> dict:
    result = localizer("info", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_stills_have_no_times_until_somebody_says(stills: Path, tmp_path: Path) -> None:
    facts = info(stills)
    assert (facts["stamps"], facts["fps"], facts["duration_s"]) == ("invented", None, None)
    assert facts["camera"]["known"] is False
    facts = info(stills, "--fps", "5")
    assert facts["stamps"] == "recorded" and facts["fps"] == pytest.approx(5.0)
    write(tmp_path / "times.txt", "1\n1.5\n2\n")
    assert info(stills, "--stamps", tmp_path / "times.txt")["fps"] == pytest.approx(2.0)


def test_a_camera_is_chosen_in_every_format(stills: Path, world: Path) -> None:
    assert "has one camera" in one_line(localizer("info", stills, "--topic", "camera=cam0"))
    assert "has one camera" in one_line(localizer("info", world, "--topic", "camera=cam0"))
    assert "--topic camera=NAME" in one_line(localizer("info", stills, "--topic", "image=cam0"))


def test_a_camera_of_joined_recordings_is_chosen_too(tmp_path: Path) -> None:
    for drive in ("a", "b"):
        for camera in ("image_0", "image_1"):
            for i in range(2):
                write(tmp_path / drive / camera / f"{i:06d}.png", encode_png(picture(i)))
        write(tmp_path / drive / "times.txt", "0\n0.1\n")
        row = "50 0 31 0 0 51 24.5 0 0 0 1 0"
        write(tmp_path / drive / "calib.txt", f"P0: {row}\nP1: {row}\n")
    facts = info(tmp_path, "--topic", "camera=image_1")
    assert facts["frames"] == 4
    assert "no camera 'image_5'" in one_line(localizer("info", tmp_path, "--topic", "camera=image_5"))


def test_a_map_of_an_unknown_camera_is_refused(stills: Path, tmp_path: Path) -> None:
    result = localizer("map", stills, "--out", tmp_path / "scene")
    message = result.stderr.splitlines()[-1]
    assert result.exit_code == 1 and "camera is not known" in message and "camera.yaml" in message


def test_poses_of_a_frame_that_looks_along_x_are_turned(world: Path) -> None:
    plain, turned = Reading().open(world), Reading(camera_convention="forward").open(world)
    given, optical = plain.records[2].T_map_cam, turned.records[2].T_map_cam
    # Forward of the optical frame is the given frame's x, and down its minus z.
    np.testing.assert_allclose(optical.R[:, 2], given.R[:, 0], atol=1e-12)
    np.testing.assert_allclose(optical.R[:, 1], -given.R[:, 2], atol=1e-12)
    np.testing.assert_allclose(turned.read(2).T_base_cam.matrix(), turned.T_base_cam.matrix(), atol=1e-12)
    with pytest.raises(ConfigError, match="did you mean forward"):
        Reading(camera_convention="forwards").open(world)


def test_the_words_say_the_same_again() -> None:
    reading = Reading("tum", ["camera=a"], 2.0, Path("t.txt"), "opengl")
    words = reading.words()
    assert words[:4] == ["--format", "tum", "--topic", "camera=a"] and len(words) == 10
    assert Reading().words() == []


def test_several_recordings_make_one(world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(world.read_text())
    assert len(Reading().open(world, other).records) == 2 * len(Reading().open(world).records)
