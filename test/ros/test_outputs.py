"""Poses, odometry and TF that the node publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import (
    CAMERA,
    MS,
    SECOND,
    T_BASE_CAM,
    Robot,
    parameters,
    static_tf,
    true_pose,
)
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from tf2_msgs.msg import TFMessage

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    Array,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    Status,
)
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.outputs import Outputs

S_CAM = np.diag([1e-4, 1e-4, 1e-4, 0.01, 0.01, 0.01])


class Recorded:
    """A publisher that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)


class RecordedBroadcaster:
    """In place of a ``MapBroadcaster``: keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waiting_for = ""

    def send(self, stamp: int, T_map_base: SE3, base_frame: str, contradicted: bool = False) -> None:
        self.told.append(f"send {base_frame} at {stamp}{', odometry contradicted' if contradicted else ''}")

    def retry(self) -> None:
        self.told.append("retry")

    def forget(self) -> None:
        self.told.append("forget")


class Rig:
    """Outputs without ROS around them."""

    def __init__(self) -> None:
        self.published: dict[str, Recorded] = {}
        self.broadcaster = RecordedBroadcaster()
        self.outputs = Outputs(self.create, "map", self.broadcaster)  # type: ignore[arg-type]

    def create(self, kind: type, name: str) -> Recorded:
        return self.published.setdefault(name, Recorded())

    def counts(self) -> dict[str, int]:
        return {name: len(topic.messages) for name, topic in self.published.items() if topic.messages}


def job(base_frame: str = "base_link") -> Job:
    message = convert.image_msg(np.zeros((24, 32), np.uint8), SECOND, "camera")
    return Job(message, CAMERA, "camera", base_frame, T_BASE_CAM, None, "", 0.0)


def answer(
    status: Status = Status.TRACKING, covariance: Array | None = S_CAM, reset: bool = False
) -> LocalizerOutput:
    estimate = PoseEstimate(SECOND, true_pose(SECOND), covariance, "test")
    return LocalizerOutput(SECOND, status, estimate, estimate, None, "", {}, reset)


def test_an_answer_is_published_as_the_pose_of_the_base() -> None:
    rig = Rig()
    pose = rig.outputs.publish(job(), answer())
    assert pose is not None
    assert rig.counts() == {"pose": 1, "pose_with_covariance": 1, "odometry": 1, "global_pose": 1}
    expected = true_pose(SECOND) @ T_BASE_CAM.inverse()
    for T_map_base in (
        pose.T_map_base,
        convert.pose_from_msg(rig.published["pose"].messages[0].pose),
        convert.pose_from_msg(rig.published["global_pose"].messages[0].pose.pose),
    ):
        np.testing.assert_allclose(T_map_base.matrix(), expected.matrix(), atol=1e-12)
    assert rig.published["odometry"].messages[0].child_frame_id == "base_link"
    assert rig.broadcaster.told == [f"send base_link at {SECOND}"]


def test_a_lost_answer_publishes_no_pose_and_drops_the_transform_that_waits() -> None:
    rig = Rig()
    assert rig.outputs.publish(job(), answer(Status.LOST)) is None
    assert rig.counts() == {"global_pose": 1}
    assert rig.broadcaster.told == ["forget"]


def test_a_reset_drops_the_transform_that_waits_before_the_new_one() -> None:
    rig = Rig()
    rig.outputs.publish(job(), answer(reset=True))
    assert rig.broadcaster.told == ["forget", f"send base_link at {SECOND}"]


def test_the_transform_is_told_that_odometry_does_not_carry_the_robot() -> None:
    rig = Rig()
    rig.outputs.publish(job(), replace(answer(), odometry_contradicted=True))
    assert rig.broadcaster.told == [f"send base_link at {SECOND}, odometry contradicted"]


def test_an_unknown_covariance_is_not_published_as_one() -> None:
    rig = Rig()
    assert rig.outputs.publish(job(), answer(covariance=None)) is not None
    assert rig.counts() == {"pose": 1}


def test_a_pose_of_no_named_frame_has_no_transform() -> None:
    rig = Rig()
    rig.outputs.publish(job(base_frame=""), answer())
    assert rig.counts()["pose"] == 1 and rig.broadcaster.told == []


def test_an_answer_that_is_not_finite_publishes_nothing() -> None:
    rig = Rig()
    with pytest.raises(FrameRejected) as caught:
        rig.outputs.publish(job(), answer(covariance=np.full((6, 6), np.nan)))
    assert caught.value.kind == "not_finite"
    assert rig.counts() == {} and rig.broadcaster.told == []


# --- with the node ---


@pytest.mark.ros
def test_outputs_have_the_stamp_of_the_image_and_agree_with_each_other(robot: Robot) -> None:
    robot.start().ready()
    pose = robot.listen(PoseStamped, "/localizer/pose")
    with_covariance = robot.listen(PoseWithCovarianceStamped, "/localizer/pose_with_covariance")
    odometry = robot.listen(Odometry, "/localizer/odometry")
    absolute = robot.listen(PoseWithCovarianceStamped, "/localizer/global_pose")
    tf = robot.listen(TFMessage, "/tf")
    stamps = [5 * SECOND + 1, 5 * SECOND + 100 * MS]
    for count, stamp in enumerate(stamps, start=1):
        robot.image(stamp)
        robot.answered(count)
    topics = {
        "pose": pose,
        "covariance": with_covariance,
        "odometry": odometry,
        "absolute": absolute,
        "tf": tf,
    }
    robot.until(
        lambda: all(len(m) == 2 for m in topics.values()), f"{ {k: len(m) for k, m in topics.items()} }"
    )
    for index, stamp in enumerate(stamps):
        T = true_pose(stamp)
        transform = tf[index].transforms[0]
        assert (transform.header.frame_id, transform.child_frame_id) == ("map", "camera")
        for message in (pose[index], with_covariance[index], odometry[index], absolute[index], transform):
            assert convert.stamp_ns(message.header.stamp) == stamp
            assert message.header.frame_id == "map"
        for found in (
            convert.pose_from_msg(pose[index].pose),
            convert.pose_from_msg(with_covariance[index].pose.pose),
            convert.pose_from_msg(odometry[index].pose.pose),
            convert.transform_from_msg(transform),
        ):
            # Doubles all the way; one quaternion there and back.
            np.testing.assert_allclose(found.matrix(), T.matrix(), atol=1e-12)
    twist = odometry[1].twist.twist
    velocity = (true_pose(stamps[0]).inverse() @ true_pose(stamps[1])).log() / (
        (stamps[1] - stamps[0]) * 1e-9
    )
    np.testing.assert_allclose([twist.angular.z, twist.linear.y], velocity[[2, 4]], atol=1e-9)
    assert odometry[0].twist.covariance[0] == convert.UNKNOWN_VARIANCE


@pytest.mark.ros
@pytest.mark.parametrize("robot", [parameters("base_frame:=base_link")], indirect=True)
def test_base_frame_is_published_through_the_static_transform(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    tf = robot.listen(TFMessage, "/tf")
    # Without the transform frames are dropped, never taken as if the camera were the base.
    robot.image(SECOND)
    robot.image(2 * SECOND)
    robot.dropped("no_extrinsics")
    assert not poses and not robot.fake.frames
    static_tf(robot)
    robot.answered(1)
    robot.until(lambda: poses and tf, "no pose")
    # The newest of them waited for the transform.
    assert convert.stamp_ns(poses[0].header.stamp) == 2 * SECOND
    expected = true_pose(2 * SECOND) @ T_BASE_CAM.inverse()
    np.testing.assert_allclose(convert.pose_from_msg(poses[0].pose).matrix(), expected.matrix(), atol=1e-12)
    assert tf[0].transforms[0].child_frame_id == "base_link"


@pytest.mark.ros
@pytest.mark.parametrize("robot", [parameters("publish_tf:=false")], indirect=True)
def test_tf_can_be_switched_off(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    robot.image(SECOND)
    robot.until(lambda: poses, "no pose")
    assert robot.robot.count_publishers("/tf") == 0


@pytest.mark.ros
def test_values_that_are_not_finite_are_never_published(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    tf = robot.listen(TFMessage, "/tf")
    nan = np.full(3, np.nan)

    def poison(frame: Frame, output: LocalizerOutput) -> LocalizerOutput:
        assert output.estimate is not None
        T = SE3(np.eye(3), nan) if frame.stamp_ns == SECOND else output.estimate.T_map_cam
        S = np.full((6, 6), np.inf) if frame.stamp_ns == 2 * SECOND else output.estimate.covariance
        estimate = PoseEstimate(frame.stamp_ns, T, S, "fake")
        return LocalizerOutput(frame.stamp_ns, Status.TRACKING, estimate, estimate, None, "", {})

    robot.fake.behave = poison
    for index in (1, 2):
        robot.image(index * SECOND)
        robot.dropped("not_finite", index)
    robot.image(3 * SECOND)
    robot.answered(1)
    robot.until(lambda: poses and tf, "no pose")
    assert [convert.stamp_ns(message.header.stamp) for message in poses] == [3 * SECOND]
    assert len(tf) == 1


@pytest.mark.ros
def test_lost_publishes_no_pose_and_says_what_would_help(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    tf = robot.listen(TFMessage, "/tf")
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    robot.image(SECOND)
    robot.until(lambda: len(poses) == 1 and len(tf) == 1, "no pose")

    def lose(frame: Frame, output: LocalizerOutput) -> LocalizerOutput:
        return LocalizerOutput(frame.stamp_ns, Status.LOST, None, None, None, "no pose for 2.1 s", {})

    robot.fake.behave = lose
    robot.image(2 * SECOND)
    robot.answered(2)

    def says_lost() -> bool:
        return any("LOST: no pose for 2.1 s; bring" in m.status[0].message for m in diagnostics)

    robot.until(says_lost, "diagnostics do not say LOST")
    assert (len(poses), len(tf)) == (1, 1)
