"""Videos: frames, times, the camera beside them, damage."""

from __future__ import annotations

import os
import pickle
import struct

import cv2
import numpy as np
import pytest
from small_recordings import write

from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.several import open_chosen
from localizer_ros.datasets.source import open_source, require_camera
from localizer_ros.datasets.video import QUIET

FRAMES, FPS, WIDTH, HEIGHT = 12, 10.0, 64, 48


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Frames that get brighter one by one. Read-only."""
    path = tmp_path_factory.mktemp("videos") / "drive.MP4"
    os.environ.setdefault(*QUIET)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 20 * i, np.uint8))
    writer.release()
    return path


def brightness(source, index):
    return float(source.read(index).image.mean())


def test_frames_have_the_times_of_the_container(video):
    source = open_source(video)
    assert (source.format, source.stamps, len(source.records)) == ("video", "recorded", FRAMES)
    steps = np.diff([record.stamp_ns for record in source.records])
    np.testing.assert_allclose(steps, 1e9 / FPS, atol=1e3)


def test_a_long_video_tells_how_far_its_times_are_read(video, monkeypatch):
    told = []
    monkeypatch.setattr("localizer_ros.datasets.video._TELL_EVERY", 5)
    open_chosen(video, None, {}, lambda *step: told.append(step))
    assert told == [("times of the video", 5, FRAMES), ("times of the video", 10, FRAMES)]


def test_frames_are_read_in_any_order_and_by_copies(video):
    source = open_source(video)
    for index in (0, 1, 5, 3, 11, 11, 0):
        assert brightness(source, index) == pytest.approx(20 * index, abs=4)
    assert brightness(pickle.loads(pickle.dumps(source)), 7) == pytest.approx(140, abs=4)


def test_the_camera_stands_beside_the_video(video, tmp_path):
    path = tmp_path / "drive.mp4"
    path.write_bytes(video.read_bytes())
    with pytest.raises(SourceError, match=r"camera is not known; expected a ROS calibration .*camera\.yaml"):
        require_camera(open_source(path))
    write_camera_yaml(tmp_path / "camera.yaml", Camera.pinhole(WIDTH, HEIGHT, 50, 50, 31, 24))
    assert open_source(path).camera.K[0, 0] == 50
    write_camera_yaml(tmp_path / "drive.yaml", Camera.pinhole(WIDTH, HEIGHT, 60, 60, 31, 24))
    assert open_source(path).camera.K[0, 0] == 60
    write_camera_yaml(tmp_path / "drive.yaml", Camera.pinhole(2 * WIDTH, HEIGHT, 60, 60, 31, 24))
    with pytest.raises(SourceError, match=r"drive\.yaml: is of 128x48 images, the video has 64x48"):
        open_source(path)


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_what_is_no_video_is_one_line(video, tmp_path, content, capfd):
    whole = video.read_bytes()
    # Cut off before its index, which stands at the end.
    write(tmp_path / "cut.mp4", whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(SourceError, match=r"cut\.mp4: is no video that OpenCV can read"):
        open_source(tmp_path / "cut.mp4")
    assert not capfd.readouterr().err


def test_a_video_without_frames_is_refused(tmp_path):
    path = tmp_path / "none.mp4"
    cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT)).release()
    with pytest.raises(SourceError, match=r"none\.mp4"):
        open_source(path)


def test_a_rotation_that_a_phone_notes_is_not_applied(video, tmp_path):
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 44
    quarter = (0, 1 << 16, 0, -1 << 16, 0, 0, HEIGHT << 16, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *quarter)
    write(tmp_path / "upright.mp4", bytes(data))
    assert cv2.VideoCapture(str(tmp_path / "upright.mp4")).read()[1].shape == (WIDTH, HEIGHT, 3)
    source = open_source(tmp_path / "upright.mp4")
    assert (source.camera.width_px, source.camera.height_px) == (WIDTH, HEIGHT)
    assert source.read(3).image.shape == (HEIGHT, WIDTH, 3)
