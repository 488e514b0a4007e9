"""Times for recordings that have none."""

from __future__ import annotations

import pytest
from small_recordings import picture, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.restamped import with_rate, with_stamps
from localizer_ros.datasets.source import open_source

SECOND = 1_000_000_000


@pytest.fixture
def stills(tmp_path):
    """Two sequences of three images, and a split of one of each."""
    for sequence in "ab":
        for i in range(3):
            write(tmp_path / "stills" / sequence / f"{i}.png", encode_png(picture(i)))
    write(tmp_path / "stills" / "splits" / "test.txt", "a/2.png\nb/0.png\n")
    return open_source(tmp_path / "stills")


def test_a_rate_makes_each_sequence_continuous(stills):
    source = with_rate(stills, 4.0)
    assert source.stamps == "recorded"
    stamps = [record.stamp_ns for record in source.records]
    assert stamps[:3] == [0, SECOND // 4, SECOND // 2]
    assert [stamp - stamps[3] for stamp in stamps[3:]] == stamps[:3]
    assert stamps[3] - stamps[2] > 100 * SECOND
    # A part keeps the times of the whole.
    assert [record.stamp_ns for record in source.split("test").records] == [stamps[2], stamps[3]]
    assert source.read(1).stamp_ns == SECOND // 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.0\n5.5\n6\n7\n8\n9.25\n", [5, 5.5, 6, 7, 8, 9.25]),
        ("# t\n1.5 a/0.png\n2.5 b/1.png\n", [1.5, 2.5]),
        ("a/0,1.5\nb/1,2.5\n", [1.5, 2.5]),
        ("timestamp,filename\n1700000000000000000,a/0.png\n1700000001000000000,b/1.png", [1.7e9, 1.7e9 + 1]),
    ],
)
def test_stamps_of_a_file(stills, tmp_path, text, expected):
    write(tmp_path / "times.txt", text)
    source = with_stamps(stills, tmp_path / "times.txt")
    assert [record.stamp_ns for record in source.records] == [round(s * SECOND) for s in expected]
    if len(expected) == 2:
        assert [record.name for record in source.records] == ["a/0.png", "b/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", r"times\.txt: 2 stamps for 6 images"),
        ("1 a/0.png\nsoon a/1.png\n", r"times\.txt:2: expected a stamp, got 'a/1.png'|got 'soon'"),
        ("1 a/0.png 7\n", r"times\.txt:1: expected 'stamp name'"),
        ("1 a/0.png\n2 a/0.png\n", r"times\.txt:2: image 'a/0.png' is listed twice"),
        ("1 x.png\n", r"names none of the 6 images, e\.g\. a/0\.png; it has x\.png"),
        ("2 a/0.png\n1 a/1.png\n", "stamps must increase"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(stills, tmp_path, text, message):
    write(tmp_path / "times.txt", text)
    with pytest.raises(SourceError, match=message):
        with_stamps(stills, tmp_path / "times.txt")


def test_names_of_no_image_and_images_without_a_stamp_are_counted(stills, tmp_path):
    write(tmp_path / "times.txt", "1 a/0.png\n2 x.png\n3 y.png\n4 a/1\n")
    source = with_stamps(stills, tmp_path / "times.txt")
    assert [record.name for record in source.records] == ["a/0.png", "a/1.png"]
    names, images = source.problems
    assert names.endswith("times.txt: 2 of its 4 names are of no image here, the first is x.png")
    assert images.endswith("4 of 6 images have no stamp and are left out, the first is a/2.png")
    write(tmp_path / "all.txt", "".join(f"{i} {r.name}\n" for i, r in enumerate(stills.records)))
    assert with_stamps(stills, tmp_path / "all.txt").problems == []


def test_a_recording_keeps_times_of_its_own(world, tmp_path):
    with pytest.raises(SourceError, match=r"has times of its own .*leave --fps out"):
        with_rate(world, 30.0)
    with pytest.raises(SourceError, match="leave --stamps out"):
        with_stamps(world, tmp_path / "times.txt")
