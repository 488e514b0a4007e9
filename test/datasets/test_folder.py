"""What all folders of images share: notes, splits, and damage named in one line."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from small_recordings import picture, write

from localizer_ros.core.types import LocalizerError, SourceError
from localizer_ros.datasets.convert import write_tum
from localizer_ros.datasets.derived import readable
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.source import open_source


def test_ground_truth_note_and_own_splits(seven_scenes):
    root, _ = seven_scenes
    (root / "ground_truth.txt").write_text("SfM pseudo ground truth\n")
    (root / "splits").mkdir()
    (root / "splits" / "few.txt").write_text(
        "# two\nseq-02/frame-000003.color.png\nseq-01/frame-000000.color.png\n"
    )
    source = open_source(root)
    assert source.ground_truth == "SfM pseudo ground truth"
    few = source.split("few")
    # In order of time, whatever the order of the list.
    assert [record.name[:6] for record in few.records] == ["seq-01", "seq-02"]
    np.testing.assert_array_equal(few.read(1).image, picture(23))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("seq-01/frame-000000.pose.txt", "1 2 3", r"frame-000000\.pose\.txt: expected a 4x4"),
        ("seq-01/frame-000000.pose.txt", "1 0 0 x\n" * 4, r"frame-000000\.pose\.txt: expected a 4x4"),
        ("seq-01/frame-000000.pose.txt", "5 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "away from a rotation"),
        ("TrainSplit.txt", "sequence1\nsequence7\n", r"TrainSplit\.txt:2: 'sequence7' has no folder seq-07"),
        ("TestSplit.txt", "first\n", r"TestSplit\.txt:1: expected a sequence like"),
        (
            "splits/a.txt",
            "seq-01/frame-000000.color.png\nnone.png\n",
            r"a\.txt:2: image 'none\.png' is not in",
        ),
        ("splits/a.txt", "\n", r"a\.txt: expected image names"),
        ("camera.yaml", "image_width: 64", r"camera\.yaml: expected a ROS camera calibration"),
        ("camera.yaml", "[", r"camera\.yaml: cannot be read"),
        ("camera.yaml", b"\xff\xfe\x00", r"camera\.yaml: cannot be read"),
    ],
)
def test_damage_is_named_in_one_line(seven_scenes, file, text, message):
    root, _ = seven_scenes
    write(root / file, text)
    with pytest.raises(LocalizerError, match=message) as caught:
        open_source(root)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SourceError)


@pytest.mark.parametrize("frame", [0, 1, 11])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "compressed image is empty"),
        (encode_png(picture(1))[:100], "cut off"),
        (encode_png(picture(1)[:40]), "image is 64x40 but the camera is 64x48"),
    ],
)
def test_one_broken_frame_costs_that_frame(seven_scenes, tmp_path, frame, data, why):
    root, _ = seven_scenes
    name = open_source(root).records[frame].name
    (root / name).write_bytes(data)
    source = open_source(root)
    assert len(source.records) == 12
    assert list(source.broken) == [name] and why in source.broken[name]
    assert any("1 of 12 frames cannot be used" in line for line in recording_info(source)["problems"])
    with pytest.raises(SourceError, match=re.escape(name)):
        source.read(frame)
    assert [r.name for r in readable(source).records] == [r.name for r in source.records if r.name != name]
    write_tum(source, tmp_path / "tum")
    assert len(open_source(tmp_path / "tum").records) == 11


def test_where_no_frame_can_be_read_the_first_is_named(seven_scenes):
    root, _ = seven_scenes
    for file in root.glob("seq-*/*.png"):
        file.write_bytes(encode_png(picture(1)[:40]))
    with pytest.raises(SourceError, match=r"frame-000000\.color\.png: image is 64x40"):
        open_source(root)


def test_missing_image_is_named_when_read(seven_scenes):
    root, _ = seven_scenes
    source = open_source(root)
    (root / "seq-02" / "frame-000001.color.png").unlink()
    with pytest.raises(SourceError, match=r"seq-02/frame-000001\.color\.png: cannot be read"):
        source.read(5)


@pytest.mark.parametrize("name", ["camera.yaml", "TestSplit.txt", "seq-02/frame-000001.pose.txt"])
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_what_stands_in_the_place_of_an_optional_file_is_named(seven_scenes, name, put):
    file = seven_scenes[0] / name
    file.unlink()
    put(file)
    with pytest.raises(
        SourceError, match=rf"{name}: cannot be read \((not a regular file|a link to nothing)\)"
    ):
        open_source(seven_scenes[0])


@pytest.mark.parametrize("name", ["TrainSplit.txt", "TestSplit.txt"])
def test_a_split_of_nothing_is_an_error(seven_scenes, name):
    (seven_scenes[0] / name).write_text("# nothing\n")
    with pytest.raises(SourceError, match=f"{name}: expected sequences"):
        open_source(seven_scenes[0])
