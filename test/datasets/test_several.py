"""Several recordings as one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from small_recordings import assert_pose, picture, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.derived import SomeFrames
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.restamped import with_rate
from localizer_ros.datasets.several import JoinedSource
from localizer_ros.datasets.source import open_source
from localizer_ros.evaluation.check_stamps import check_stamps


@pytest.fixture(scope="module")
def drives(bag, tmp_path_factory):
    """A folder with the same bag of twelve frames twice. Read-only."""
    folder = tmp_path_factory.mktemp("drives")
    for day in ("monday", "tuesday"):
        shutil.copytree(bag, folder / day)
    return folder


def test_a_folder_of_recordings_is_one(drives, world):
    source = open_source(drives)
    assert (source.format, source.stamps, len(source.records)) == ("several", "recorded", 24)
    assert {record.sequence.split("/")[0] for record in source.records} == {"monday", "tuesday"}
    # Times overlap: the second is moved behind the first, and that is said.
    stamps = np.array([record.stamp_ns for record in source.records])
    assert np.all(np.diff(stamps) > 0)
    np.testing.assert_array_equal(stamps[12:] - stamps[12], stamps[:12] - stamps[0])
    assert any("tuesday: times overlap" in line for line in source.problems)
    for index in (3, 15):
        frame, record = source.read(index), source.records[index]
        assert (frame.name, frame.stamp_ns) == (record.name, record.stamp_ns)
        assert_pose(record.T_map_cam, world.records[3].T_map_cam)
    np.testing.assert_array_equal(source.read(3).image, source.read(15).image)
    assert_pose(source.T_base_cam, world.T_base_cam)
    assert source.odometry.length_m > 0 and len(source.odometry) == 2 * len(
        open_source(drives / "monday").odometry
    )


def test_recordings_of_different_rates_have_no_gaps(drives, world):
    slow = with_rate(_stills(world, 2), 2.0)
    joined = JoinedSource([open_source(drives / "monday"), slow])
    assert recording_info(joined)["gaps"] == []
    assert not [f for f in check_stamps(joined)[1] if f.severity != "note"]


def _stills(source, step):
    """Every ``step``-th frame, without times."""
    stills = SomeFrames(source, range(0, len(source.records), step), source.records[::step])
    stills.stamps = "invented"
    return stills


def test_recordings_of_different_forms_splits_and_faults(drives, seven_scenes):
    kitchen, _ = seven_scenes
    (kitchen / "seq-01" / "frame-000001.color.png").write_bytes(b"")
    source = JoinedSource([open_source(drives / "monday"), open_source(kitchen)])
    assert source.splits == ("train", "test")
    assert [record.name.split("/")[0] for record in source.split("test").records] == ["kitchen"] * 4
    assert list(source.broken) == ["kitchen/seq-01/frame-000001.color.png"]
    assert source.T_base_cam is None and source.odometry is None


def test_pictures_beside_recordings_do_not_count_and_pictures_alone_do(drives, tmp_path):
    shutil.copytree(drives / "monday", tmp_path / "monday")
    write(tmp_path / "monday" / "preview.png", encode_png(picture(1)))
    assert open_source(tmp_path).format == "several"
    write(tmp_path / "1.png", encode_png(picture(1)))
    assert open_source(tmp_path).format == "images"


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no recordings"):
        open_source(tmp_path, "several")
