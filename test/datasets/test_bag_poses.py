"""Poses of a bag become the camera's, or are not used."""

from __future__ import annotations

import numpy as np
import pytest
from bag_recorder import START_NS, Recorder, pictures, stamp

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
    assert "no transforms from the map to the camera 'cam'" in source.pose_problem
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


def images(recorder, rng, count=4, frame="cam"):
    recorder.info("/front/camera_info", 64, 48)
    for i, pixels in enumerate(pictures(rng, count)):
        recorder.image("/front/image_raw", stamp(i), pixels, "rgb8", frame=frame)


@pytest.mark.parametrize("space", ["", "/robot1"])
@pytest.mark.parametrize("mounting", ["static", "repeated"])
def test_a_chain_of_transforms_gives_poses_at_the_stamps_of_the_images(recorder, rng, space, mounting):
    """map -> odom -> base_link -> head -> cam: each edge at its own times, interpolated at the images' stamps."""
    T_head_cam = SE3.exp(rng.uniform(-1, 1, 6))
    start, speed = SE3.exp(rng.uniform(-1, 1, 6)), np.array([0.0, 0.0, 0.1, 0.2, 0.0, 0.0])

    def edges(seconds):
        T_map_odom = SE3(np.eye(3), np.array([0.1 * seconds, 0.0, 0.0]))
        T_odom_base = start @ SE3.exp(speed * seconds)
        T_base_head = SE3.exp([0.0, 0.0, 0.3 * seconds, 0.0, 0.0, 0.5])
        return T_map_odom, T_odom_base, T_base_head

    names = (("map", "odom"), ("odom", "base_link"), ("base_link", "head"))
    step = (stamp(1) - stamp(0)) / 1e9
    for i in range(-40, 480):
        at = stamp(0) + int(i * 1e7)
        for name, T in zip(names, edges(i * 0.01), strict=True):
            recorder.transforms(f"{space}/tf", at, (*name, T))
        if mounting == "repeated" and i % 7 == 0:
            recorder.transforms(f"{space}/tf", at, ("head", "cam", T_head_cam))
    if mounting == "static":
        recorder.transforms(f"{space}/tf_static", stamp(0), ("head", "cam", T_head_cam))
    images(recorder, rng)
    source = open_source(recorder.close())
    assert source.ground_truth == "TF map -> odom -> base_link -> head -> cam"
    for i, record in enumerate(source.records):
        T_map_odom, T_odom_base, T_base_head = edges(i * step)
        expected = T_map_odom @ T_odom_base @ T_base_head @ T_head_cam
        assert record.T_map_cam.distance_to(expected) < 1e-4
        assert record.T_map_cam.angle_to(expected) < 1e-4
    (candidate,) = source.details["pose_candidates"]
    assert (candidate["frames"], round(candidate["rate_hz"])) == (4, 100)
    assert open_source(recorder.path, topics={"ground_truth": "none"}).ground_truth == "none"


def test_poses_of_another_clock_and_rare_poses_are_told_apart(recorder, rng, tmp_path):
    images(recorder, rng)
    for i in range(4):
        recorder.odometry("/ground_truth", stamp(i) - 10**18, SE3.exp(0.1 * i * np.ones(6)), "map", "cam")
    source = open_source(recorder.close())
    assert "does not overlap the images (poses 600000" in source.pose_problem
    assert "images 1600000000.000" in source.pose_problem
    rare = Recorder(tmp_path / "rare")
    images(rare, rng, 12)
    step = stamp(1) - stamp(0)
    for i in range(-1, 14, 6):
        rare.odometry("/ground_truth", stamp(i) + step // 3, SE3.exp(0.1 * i * np.ones(6)), "map", "cam")
    source = open_source(rare.close())
    assert f"too sparse ({6e-9 * step:.2g} s between poses, limit 0.2 s)" in source.pose_problem


def test_poses_without_a_pose_in_them_are_left_out(recorder, rng):
    images(recorder, rng)
    empty = SE3.identity()
    for i in range(4):
        recorder.odometry("/ground_truth", stamp(i), empty, "map", "cam")
    header = recorder.header(stamp(0), "map")
    message = recorder.make("geometry_msgs/msg/PoseStamped", header=header, pose=zeros(recorder))
    recorder.add("/goal_pose", stamp(0), message)
    recorder.add("/mocap/robot", stamp(0), message)
    path = recorder.close()
    source = open_source(path, topics={"ground_truth": "/ground_truth"})
    assert source.problems == [] and source.records[0].T_map_cam is not None
    source = open_source(path, topics={"ground_truth": "/goal_pose"})
    assert "/goal_pose holds no poses (pose: quaternion is zero)" in source.problems[0]


def zeros(recorder):
    return recorder.make(
        "geometry_msgs/msg/Pose",
        position=recorder.make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
        orientation=recorder.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=0.0),
    )
