"""Bags: what is written is read back; foreign bags are understood or refused in words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from bag_recorder import START_NS, Recorder, pictures, stamp
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.rosbag import RosbagSource
from localizer_ros.datasets.source import open_source, require_camera


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", ["none", "png", "jpeg"])
def test_round_trip(world, tmp_path, storage, compression):
    calls = []
    write_bag(world, tmp_path / "bag", storage, compression, lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 12) for i in range(12)]
    source = open_source(tmp_path / "bag")
    assert (source.format, source.ground_truth, source.problems) == ("rosbag", "simulation (exact)", [])
    assert source.camera.same_as(world.camera)
    assert len(source.records) == len(world.records) == 12
    for index, (record, original) in enumerate(zip(source.records, world.records, strict=True)):
        assert record.stamp_ns == original.stamp_ns
        np.testing.assert_allclose(record.T_map_cam.matrix(), original.T_map_cam.matrix(), atol=1e-12)
        image, expected = source.read(index).image, world.read(index).image
        if compression == "jpeg":
            assert np.abs(image.astype(int) - expected).mean() < 4.0
        else:
            np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(source.T_base_cam.matrix(), world.T_base_cam.matrix(), atol=1e-12)
    np.testing.assert_array_equal(source.odometry.stamps_ns, world.odometry.stamps_ns)
    np.testing.assert_allclose(source.odometry.positions, world.odometry.positions, atol=1e-12)
    np.testing.assert_allclose(source.odometry.covariances, world.odometry.covariances, atol=1e-12)


def test_a_bag_of_invented_stamps_says_so(world, tmp_path):
    stills = copy.copy(world)
    stills.stamps = "invented"
    write_bag(stills, tmp_path / "bag")
    assert (world.stamps, open_source(tmp_path / "bag").stamps) == ("recorded", "invented")


def test_order_repeats_and_pauses(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48)
    pixels = pictures(rng, 6)
    # Arrival: second before first, one twice, and after a pause a second drive.
    for i, (at, log) in enumerate([(1, 10), (0, 11), (1, 12), (2, 12), (200, 300), (201, 301)]):
        recorder.image("/cam/image_raw", stamp(at), pixels[i], "rgb8", log_ns=stamp(log))
    source = open_source(recorder.close())
    assert [record.stamp_ns for record in source.records] == [stamp(at) for at in (0, 1, 2, 200, 201)]
    assert [record.sequence for record in source.records] == ["bag-0"] * 3 + ["bag-1"] * 2
    for index, number in enumerate((1, 0, 3, 4, 5)):
        np.testing.assert_array_equal(source.read(index).image, pixels[number])
    assert ["go back" in source.problems[0], "repeat" in source.problems[1]] == [True, True]


def test_images_without_stamps_take_the_times_of_recording(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/cam/image_raw", 0, pixels, "rgb8", log_ns=stamp(i))
    source = open_source(recorder.close())
    assert [record.stamp_ns for record in source.records] == [stamp(i) for i in range(4)]
    assert "no stamps" in source.problems[0]


@pytest.mark.parametrize(
    ("encoding", "options", "message"),
    [
        ("tiff", {}, r"/cam/image_raw at 1600000000\.000000123 s: image encoding 'tiff' is not supported"),
        ("rgb8", {"step": 10}, "step is 10 bytes"),
        ("rgb8", {"step": 1000}, r"expected .* \(64x48 rgb8, step 1000\)"),
    ],
)
def test_damaged_images_are_named(recorder, rng, encoding, options, message):
    recorder.info("/cam/camera_info", 64, 48)
    recorder.image("/cam/image_raw", START_NS, pictures(rng)[0], encoding, **options)
    with pytest.raises(SourceError, match=message):
        open_source(recorder.close())


def test_calibration_problems(recorder, rng, tmp_path, world):
    recorder.image("/cam/image_raw", START_NS, pictures(rng)[0], "rgb8")
    path = recorder.close()
    unknown = open_source(path)
    assert unknown.camera.width_px == 64 and not unknown.camera.distorted
    with pytest.raises(SourceError, match=r"no CameraInfo for /cam/image_raw.*camera\.yaml"):
        require_camera(unknown)
    uncalibrated = Recorder(tmp_path / "zero")
    uncalibrated.image("/cam/image_raw", START_NS, pictures(rng)[0], "rgb8")
    uncalibrated.info("/cam/camera_info", 64, 48, k=[0.0] * 9)
    with pytest.raises(SourceError, match="/cam/camera_info: camera: is not calibrated"):
        require_camera(open_source(uncalibrated.close()))
    write_camera_yaml(path / "camera.yaml", world.camera.scaled(64, 48))
    assert open_source(path).camera.width_px == 64


def test_ros1_bags(tmp_path, rng):
    store = get_typestore(Stores.ROS1_NOETIC)
    images = pictures(rng)

    def header(i):
        time = store.types["builtin_interfaces/msg/Time"](sec=stamp(i) // 10**9, nanosec=stamp(i) % 10**9)
        return store.types["std_msgs/msg/Header"](seq=i + 7, stamp=time, frame_id="cam")

    with Writer1(tmp_path / "old.bag") as writer:
        connections = {}

        def add(topic, log_ns, message):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_ros1(message, kind))

        roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        K = np.array([50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1])
        info = store.types["sensor_msgs/msg/CameraInfo"](
            header(0), 48, 64, "plumb_bob", np.zeros(5), K, np.eye(3).reshape(-1), np.zeros(12), 0, 0, roi
        )
        add("/cam/camera_info", stamp(0), info)
        for i, pixels in enumerate(images):
            data = np.ascontiguousarray(pixels[..., ::-1]).reshape(-1)
            add(
                "/cam/image_raw",
                stamp(i),
                store.types["sensor_msgs/msg/Image"](header(i), 48, 64, "bgr8", 0, 192, data),
            )
    source = open_source(tmp_path / "old.bag")
    assert isinstance(source, RosbagSource)
    assert [record.stamp_ns for record in source.records] == [stamp(i) for i in range(4)]
    assert source.camera.K[0, 2] == 31.5
    for index, pixels in enumerate(images):
        np.testing.assert_array_equal(source.read(index).image, pixels)
