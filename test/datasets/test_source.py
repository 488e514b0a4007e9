"""Recordings are recognised by their files, or it is said what was looked for."""

from __future__ import annotations

import re

import pytest

from localizer_ros.core.types import UNFORESEEN, SourceError
from localizer_ros.datasets.source import FORMATS, FrameRecord, check_order, open_source


def test_unknown_recordings(tmp_path):
    with pytest.raises(SourceError, match=r"does not exist$"):
        open_source(tmp_path / "nothing")
    (tmp_path.parent / f"{tmp_path.name}-drive1").mkdir()
    with pytest.raises(SourceError, match=r"does not exist; did you mean .*-drive1\?"):
        open_source(tmp_path.parent / f"{tmp_path.name}-drvie1")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    # The message lists what was looked for, for every format.
    assert all(f"{name}:" in str(caught.value) for name in FORMATS)
    with pytest.raises(SourceError, match=r"unknown format 'dvd'.*7scenes"):
        open_source(tmp_path, "dvd")
    (tmp_path / "scene.yaml").touch()
    with pytest.raises(SourceError, match=rf"^{tmp_path}: is a scene, expected a recording$"):
        open_source(tmp_path)


def test_a_stamp_beyond_64_bits_is_refused(tmp_path):
    for stamp_ns in (2**63, -(2**63) - 1):
        with pytest.raises(SourceError, match="frame far: 64 bits do not hold its stamp"):
            check_order(tmp_path, [FrameRecord("far", "s", stamp_ns, None)])


def test_a_fault_of_a_reader_is_one_line_that_says_so(tmp_path, monkeypatch):
    def broken(path):
        raise ZeroDivisionError("of\nmine")

    monkeypatch.setattr("localizer_ros.datasets.tum.open_recording", broken)
    with pytest.raises(SourceError, match=rf"^{tmp_path}: tum recording .*{UNFORESEEN} \(of mine\)$"):
        open_source(tmp_path, "tum")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "simulated"])
def test_every_format_refuses_an_empty_folder(tmp_path, name):
    with pytest.raises(SourceError, match=re.escape(str(tmp_path))):
        open_source(tmp_path, name)


@pytest.mark.parametrize(
    ("folder", "format", "frames", "splits", "first_fx"),
    [
        ("redkitchen", "7scenes", 770, {"train": 470, "test": 300}, 525.0),
        ("tum_fr1_rpy", "tum", 723, {"train": 506, "test": 217}, 517.3),
        ("kitti_00", "kitti", 150, {}, 718.856),
    ],
)
def test_real_recordings(shared_dir, folder, format, frames, splits, first_fx):
    path = shared_dir / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the shared recording {folder}")
    source = open_source(path)
    assert (source.format, len(source.records)) == (format, frames)
    assert {name: len(source.split(name).records) for name in source.splits} == splits
    assert source.camera.K[0, 0] == first_fx
    assert sum(record.T_map_cam is not None for record in source.records) > 0.99 * frames
    assert source.read(frames // 2).camera.same_as(source.camera)
