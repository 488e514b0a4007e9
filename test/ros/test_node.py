"""The node over real DDS: images, odometry, initial pose, services and parameters."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from fake_robot import (
    MS,
    SECOND,
    T_BASE_CAM,
    TIMEOUT_S,
    Robot,
    knows_transform,
    parameters,
    static_tf,
)
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    Frame,
    LocalizerOutput,
)
from localizer_ros.ros import conversions as convert

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("robot", [parameters("image_transport:=compressed")], indirect=True)
def test_compressed_images_are_decoded_and_a_bad_one_is_dropped(robot: Robot) -> None:
    robot.start()
    robot.info()
    shade = np.full((24, 32, 3), 77, np.uint8)
    publisher = robot.publisher(CompressedImage, "/image/compressed")
    publisher.publish(convert.compressed_msg(shade, SECOND, "camera", "png"))
    robot.answered(1)
    np.testing.assert_array_equal(robot.fake.frames[0].image, shade)
    publisher.publish(
        CompressedImage(header=convert.header(2 * SECOND, "camera"), data=array("B", b"rubbish"))
    )
    robot.dropped("unreadable")


def test_odometry_is_given_in_order_and_up_to_the_frame(robot: Robot) -> None:
    robot.start().ready()
    static_tf(robot)
    robot.until(lambda: knows_transform(robot, "base_link", "camera"), "no static transform")
    publisher = robot.publisher(Odometry, "/odom")
    for index in range(1, 8):
        publisher.publish(
            convert.odometry_sample_msg(SE3.identity(), SECOND + index * 20 * MS, "odom", "base_link")
        )
    robot.until(lambda: robot.node._odometry._newest_ns == SECOND + 140 * MS, "odometry did not arrive")
    stamp = SECOND + 90 * MS
    robot.image(stamp)
    robot.answered(1)
    assert robot.fake.seen_odometry[stamp] == [SECOND + k * 20 * MS for k in (1, 2, 3, 4)]
    assert robot.fake.seen_extrinsics is not None
    np.testing.assert_allclose(robot.fake.seen_extrinsics.matrix(), T_BASE_CAM.matrix(), atol=1e-12)


def test_while_busy_only_the_newest_frame_waits(robot: Robot) -> None:
    robot.start().ready()
    robot.fake.go_on.clear()
    robot.image(1 * SECOND)
    assert robot.fake.busy.wait(TIMEOUT_S)
    for index in range(2, 6):
        robot.image(index * SECOND)
        robot.until(lambda index=index: robot.node.health.received == index, "image did not arrive")
    robot.fake.go_on.set()
    robot.answered(2)
    assert [frame.stamp_ns for frame in robot.fake.frames] == [1 * SECOND, 5 * SECOND]
    assert robot.node.health.dropped == {"superseded": 3}


def bad_messages() -> list[tuple[str, Image]]:
    def message(**changes: Any) -> Image:
        good = convert.image_msg(np.zeros((24, 32, 3), np.uint8), 9 * SECOND, "camera")
        for name, value in changes.items():
            setattr(good, name, value)
        return good

    zero = message()
    zero.header.stamp.sec = zero.header.stamp.nanosec = 0
    other = convert.image_msg(np.zeros((12, 16, 3), np.uint8), 9 * SECOND, "camera")
    return [
        ("short_data", message(data=array("B"))),
        ("short_data", message(data=array("B", b"\x00" * 100))),
        ("encoding", message(encoding="32FC7")),
        ("encoding", message(encoding="\x00\x01")),
        ("size", message(width=0, height=0, step=0, data=array("B"))),
        ("step", message(step=1)),
        ("short_data", message(height=2**32 - 1)),
        ("short_data", message(width=2**31, height=2**31, step=2**32 - 1, encoding="mono8")),
        ("stamp_zero", zero),
        ("image_size", other),
    ]


def test_bad_images_are_counted_and_the_next_good_one_is_answered(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    expected: dict[str, int] = {}
    for kind, message in bad_messages():
        expected[kind] = expected.get(kind, 0) + 1
        robot.send(message)
        robot.dropped(kind, expected[kind])
    assert not poses
    robot.image(10 * SECOND)
    robot.answered(1)
    robot.image(10 * SECOND)
    robot.dropped("stamp_repeats")
    assert dict(robot.node.health.dropped) == expected | {"stamp_repeats": 1}
    assert robot.node.health.received == len(bad_messages()) + 2
    diagnosis = robot.node.health.diagnose()
    assert diagnosis.level == "WARN" and "stamp_repeats" in diagnosis.message


def test_random_messages_never_stop_the_node(robot: Robot, rng: np.random.Generator) -> None:
    robot.start().ready()
    encodings = ["mono8", "rgb8", "bgr8", "mono16", "yuv422", "bayer_grbg8", "bgra8", "", "x" * 300]
    count = 60
    for index in range(count):
        message = Image(
            header=convert.header(
                int(rng.integers(0, 2**30)) * SECOND, str(rng.choice(["", "camera", "/a b"]))
            ),
            height=int(rng.integers(0, 40)),
            width=int(rng.integers(0, 40)),
            encoding=str(rng.choice(encodings)),
            step=int(rng.integers(0, 200)),
            is_bigendian=int(rng.integers(0, 2)),
            data=array("B", rng.bytes(int(rng.integers(0, 4000)))),
        )
        robot.send(message)
        # One at a time, so that every one of them is tried rather than superseded.
        robot.until(
            lambda index=index: robot.node.health.processed + sum(robot.node.health.dropped.values()) > index,
            "a frame is unaccounted for",
        )
    done = robot.node.health.processed
    robot.image(2**30 * SECOND)  # later than all
    robot.answered(done + 1)
    assert robot.state() == "active"


def test_an_unexpected_error_of_one_frame_is_one_drop(robot: Robot) -> None:
    robot.start().ready()

    def fail(frame: Frame, output: LocalizerOutput) -> LocalizerOutput:
        if frame.stamp_ns == SECOND:
            raise ZeroDivisionError("a bug")
        return output

    robot.fake.behave = fail
    robot.image(SECOND)
    robot.dropped("failed")
    robot.image(2 * SECOND)
    robot.answered(1)


@pytest.mark.parametrize("robot", [parameters("base_frame:=base_link")], indirect=True)
def test_initialpose_is_a_base_pose_in_the_map(robot: Robot) -> None:
    robot.start().ready()
    static_tf(robot)
    publisher = robot.publisher(PoseWithCovarianceStamped, "/initialpose")
    T_map_base = SE3.exp([0.1, -0.2, 0.3, 1.0, 2.0, 3.0])
    good = PoseWithCovarianceStamped(header=convert.header(SECOND, "map"))
    good.pose.pose = convert.pose_msg(T_map_base)
    for change in ("frame", "nan", "zero quaternion"):
        bad = PoseWithCovarianceStamped(header=convert.header(SECOND, "map"))
        if change == "frame":
            bad.header.frame_id = "odom"
        elif change == "nan":
            bad.pose.pose.position.x = float("nan")
        else:
            bad.pose.pose.orientation.w = 0.0
        publisher.publish(bad)
    robot.until(lambda: robot.node._intake._frames[""]._info_frame == "camera", "no camera_info")
    robot.until(lambda: knows_transform(robot, "base_link", "camera"), "no static transform")
    publisher.publish(good)
    robot.until(lambda: robot.fake.priors, "no prior")
    assert len(robot.fake.priors) == 1
    expected = T_map_base @ T_BASE_CAM
    np.testing.assert_allclose(robot.fake.priors[0].T_map_cam.matrix(), expected.matrix(), atol=1e-12)


def test_relocalize_reset_and_pause_services(robot: Robot) -> None:
    robot.start().ready()
    assert robot.call(Trigger, "/localizer/relocalize", Trigger.Request()).success
    assert robot.call(Trigger, "/localizer/reset", Trigger.Request()).success
    robot.until(lambda: robot.fake.calls == ["relocalize", "reset"], f"{robot.fake.calls}")
    assert robot.call(SetBool, "/localizer/pause", SetBool.Request(data=True)).message == "paused"
    robot.image(SECOND)
    robot.dropped("paused")
    assert not robot.fake.frames
    assert robot.call(SetBool, "/localizer/pause", SetBool.Request(data=False)).message == "running"
    robot.image(2 * SECOND)
    robot.answered(1)


def set_parameters(robot: Robot, **values: Any) -> list[str]:
    """Why each was refused; empty where it was not. A double underscore stands for a point."""
    asked = [
        Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
    ]
    request = SetParameters.Request(parameters=asked)
    results = robot.call(SetParameters, "/localizer/set_parameters", request).results
    return ["" if result.successful else result.reason for result in results]


def test_what_is_read_at_the_start_is_locked_while_configured(robot: Robot) -> None:
    robot.start()
    (why,) = set_parameters(robot, smoother__lag_s=5.0)
    assert "smoother.lag_s: read when the node is configured; clean it up" in why
    assert "ros2 lifecycle set /localizer cleanup" in why
    assert robot.change(Transition.TRANSITION_DEACTIVATE) and robot.change(Transition.TRANSITION_CLEANUP)
    assert set_parameters(robot, smoother__lag_s=1e6) != [""]
    assert set_parameters(robot, smoother__lag_s=5.0) == [""]
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.node._config.smoother.lag_s == 5.0


def test_gates_and_limits_change_while_the_node_runs(robot: Robot) -> None:
    robot.start().ready()
    assert set_parameters(robot, status__lost_after_s=7.0, gate__probability=0.9, path_length=3) == [""] * 3
    assert "status.degraded_after_s" in set_parameters(robot, status__degraded_after_s=8.0)[0]
    robot.until(lambda: len(robot.fake.configs) == 3, f"{robot.fake.configs}")
    config = robot.fake.configs[-1]
    assert (config.status.lost_after_s, config.gate.probability) == (7.0, 0.9)
    for count in range(1, 6):
        robot.image(count * SECOND)
        robot.answered(count)
    assert len(robot.node._display._poses) == 3


def test_the_transform_can_be_switched_off_and_on_while_the_node_runs(robot: Robot) -> None:
    robot.start().ready()
    tf = robot.listen(TFMessage, "/tf")
    robot.image(SECOND)
    robot.until(lambda: len(tf) == 1, "no transform")
    assert set_parameters(robot, publish_tf=False) == [""]
    robot.until(lambda: robot.robot.count_publishers("/tf") == 0, "the publisher is still there")
    robot.image(2 * SECOND)
    robot.answered(2)
    assert set_parameters(robot, publish_tf=True) == [""]
    robot.until(
        lambda: any(p.get_subscription_count() > 1 for p in robot.node.publishers if p.topic_name == "/tf"),
        "the node does not see who listens",
    )
    robot.image(3 * SECOND)
    robot.until(lambda: len(tf) == 2, "no transform")
    assert [convert.stamp_ns(m.transforms[0].header.stamp) for m in tf] == [SECOND, 3 * SECOND]
