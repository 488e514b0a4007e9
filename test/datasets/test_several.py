"""Several recordings as one."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_recordings import CAMERA, assert_pose, picture, write

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.convert import write_kapture
from localizer_ros.datasets.derived import SomeFrames, SourceWithCamera
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.restamped import with_rate
from localizer_ros.datasets.several import JoinedSource, open_chosen, open_recording
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
    # What one of them knows is kept, and what the other lacks is said.
    assert len(source.odometry) == len(open_source(drives / "monday").odometry)
    assert source.T_base_cam is None
    assert any("kitchen: has no odometry" in line for line in source.problems)
    assert any("kitchen: does not tell where the camera sits" in line for line in source.problems)


def test_odometry_is_joined_with_its_covariances(drives):
    parts = [open_source(drives / day) for day in ("monday", "tuesday")]
    for part in parts:
        count = len(part.odometry)
        part.odometry = replace(part.odometry, covariances=np.arange(36.0 * count).reshape(-1, 6, 6))
    joined = JoinedSource(parts)
    assert joined.problems == [line for line in joined.problems if "overlap" in line]
    begin = len(parts[0].odometry)
    np.testing.assert_array_equal(joined.odometry.covariances[begin:], parts[1].odometry.covariances)
    assert joined.odometry.poses[begin] is parts[1].odometry.poses[0]
    parts[1].odometry = replace(parts[1].odometry, covariances=None)
    assert JoinedSource(parts).odometry.covariances is None


def test_cameras_that_sit_elsewhere_are_said(drives):
    parts = [open_source(drives / day) for day in ("monday", "tuesday")]
    parts[1].T_base_cam = parts[1].T_base_cam @ SE3(np.eye(3), np.array([0.0, 0.1, 0.0]))
    joined = JoinedSource(parts)
    assert joined.T_base_cam is None
    assert any("tuesday: the camera sits elsewhere on the robot than in monday" in p for p in joined.problems)


def test_a_camera_from_elsewhere_is_of_the_frames_that_have_none(tmp_path, seven_scenes):
    kitchen, _ = seven_scenes
    stills = tmp_path / "stills"
    for i in range(3):
        write(stills / f"{i}.png", encode_png(picture(i)))
    given = Camera.pinhole(64, 48, 70.0, 70.0, 31.5, 23.5)
    joined = JoinedSource([open_source(stills), open_source(kitchen)])
    source = SourceWithCamera(joined, given)
    assert source.camera_problem is None
    for index, record in enumerate(source.records):
        own = record.name.startswith("kitchen")
        assert source.read(index).camera.K[0, 0] == (CAMERA.K[0, 0] if own else 70.0)
    # Once given, it is not given again.
    again = SourceWithCamera(source, Camera.pinhole(640, 480, 70.0, 70.0, 31.5, 23.5))
    assert again.read(0).camera == source.read(0).camera
    with pytest.raises(SourceError, match="images are 64x48, the camera is of 640x480"):
        SourceWithCamera(joined, Camera.pinhole(640, 480, 70.0, 70.0, 31.5, 23.5))
    # Where it is that of the first frame, it stands for the recording.
    first_known = joined.records[0].name.startswith("kitchen")
    assert source.camera.K[0, 0] == (CAMERA.K[0, 0] if first_known else 70.0)


def test_a_camera_is_chosen_of_every_recording(tmp_path, world):
    for drive in ("a", "b"):
        write_kapture(world, tmp_path / "drives" / drive)
    folder = tmp_path / "drives"
    cameras = [line.split(",")[1].strip() for line in _lines(folder / "a" / "sensors" / "records_camera.txt")]
    assert len(open_recording(folder, {"camera": cameras[0]}).records) == 2 * len(world.records)
    with pytest.raises(SourceError, match="no camera 'other'; it has"):
        open_recording(folder, {"camera": "other"})
    with pytest.raises(SourceError, match=r"--topic image=\.\.\. means nothing"):
        open_recording(folder, {"image": "/image"})


def test_topics_are_chosen_of_every_bag(drives):
    assert open_chosen(drives, None, {"odometry": "none"}).odometry is None
    with pytest.raises(SourceError, match="/nowhere"):
        open_chosen(drives, None, {"image": "/nowhere"})


def _lines(file):
    return [line for line in file.read_text().splitlines() if not line.startswith("#")]


def test_pictures_beside_recordings_do_not_count_and_pictures_alone_do(drives, tmp_path):
    shutil.copytree(drives / "monday", tmp_path / "monday")
    write(tmp_path / "monday" / "preview.png", encode_png(picture(1)))
    assert open_source(tmp_path).format == "several"
    write(tmp_path / "1.png", encode_png(picture(1)))
    assert open_source(tmp_path).format == "images"


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no recordings"):
        open_source(tmp_path, "several")
