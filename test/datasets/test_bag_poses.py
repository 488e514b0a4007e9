"""Poses of a bag become the camera's, or are not used."""

from __future__ import annotations

import numpy as np
import pytest
from bag_recorder import START_NS, pictures, stamp

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameNames, frame_names, open_source


def test_ground_truth_of_the_base_becomes_the_cameras(recorder, rng):
    T_base_mount, T_mount_cam = SE3.exp(rng.uniform(-1, 1, 6)), SE3.exp(rng.uniform(-1, 1, 6))
    poses = [SE3.exp(rng.uniform(-1, 1, 6)) for _ in range(4)]
    recorder.transforms(
        "/tf_static", START_NS, ("base_link", "mount", T_base_mount), ("mount", "cam", T_mount_cam)
    )
    recorder.info("/front/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/front/image_raw", stamp(i), pixels, "rgb8")
        recorder.odometry("/mocap/robot", stamp(i), poses[i], "world", "base_link")
        recorder.odometry("/wheels/odom", stamp(i), poses[i], "odom", "base_link")
        recorder.transforms(
            "/tf", stamp(i), ("odom", "base_link", SE3.identity()), ("map", "base_link", poses[i])
        )
    source = open_source(recorder.close())
    T_base_cam = T_base_mount @ T_mount_cam
    np.testing.assert_allclose(source.T_base_cam.matrix(), T_base_cam.matrix(), atol=1e-12)
    assert source.topics["ground_truth"] == "/mocap/robot"
    assert source.topics["odometry"] == "/wheels/odom"
    # Covariances of zeros mean unknown.
    assert source.odometry.covariances is None
    for record, T_map_base in zip(source.records, poses, strict=True):
        np.testing.assert_allclose(record.T_map_cam.matrix(), (T_map_base @ T_base_cam).matrix(), atol=1e-12)

    from_tf = open_source(recorder.path, topics={"ground_truth": "/tf", "ground_truth_frame": "base_link"})
    for record, other in zip(source.records, from_tf.records, strict=True):
        np.testing.assert_allclose(record.T_map_cam.matrix(), other.T_map_cam.matrix(), atol=1e-12)
    assert open_source(recorder.path, topics={"ground_truth": "none"}).ground_truth == "none"


def test_ground_truth_of_an_unjoined_frame_is_not_taken_as_the_cameras(recorder, rng):
    recorder.info("/front/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.image("/front/image_raw", stamp(i), pixels, "rgb8")
        recorder.odometry("/ground_truth/odom", stamp(i), SE3.identity(), "world", "base_link")
    source = open_source(recorder.close())
    assert source.ground_truth == "none"
    assert all(record.T_map_cam is None for record in source.records)
    assert "'base_link'" in source.problems[0]
    assert source.T_base_cam is None
    given = open_source(recorder.path, topics={"ground_truth_frame": "cam"})
    assert all(record.T_map_cam is not None for record in given.records)


@pytest.mark.parametrize("slash", ["", "/"])
def test_frames_keep_their_names(recorder, rng, tmp_path, slash):
    """A leading slash is how ROS 1 wrote them; no TF of ROS 2 knows such a frame."""
    T_base_mount, T_mount_cam = SE3.exp(rng.uniform(-1, 1, 6)), SE3.exp(rng.uniform(-1, 1, 6))
    recorder.transforms(
        "/tf_static",
        START_NS,
        (f"{slash}wheels", "mount", T_base_mount),
        ("mount", f"{slash}eye", T_mount_cam),
    )
    recorder.info("/left/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng)):
        recorder.odometry("/odom", stamp(i), SE3.identity(), f"{slash}start", f"{slash}wheels")
        recorder.image("/left/image_raw", stamp(i), pixels, "rgb8", frame=f"{slash}eye")
    source = open_source(recorder.close())
    assert frame_names(source) == FrameNames("eye", "wheels", "start")
    expected = T_base_mount @ T_mount_cam
    assert source.T_base_cam.distance_to(expected) < 1e-9
    # Written again and read again they are the same, and so is the mounting.
    write_bag(FirstFrames(source, 2), tmp_path / "again")
    again = open_source(tmp_path / "again")
    assert frame_names(again) == frame_names(source)
    assert again.T_base_cam.distance_to(expected) < 1e-9


def test_frames_without_names_have_the_usual_ones(recorder, rng, bag):
    recorder.info("/left/camera_info", 64, 48)
    recorder.image("/left/image_raw", stamp(0), pictures(rng)[0], "rgb8", frame="")
    assert frame_names(open_source(recorder.close())) == FrameNames("camera", "base_link", "odom")
    assert frame_names(open_source(bag)) == FrameNames("camera", "base_link", "odom")
