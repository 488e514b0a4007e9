"""The node over real DDS with a localizer that is easy to predict: interface, lifecycle, bad input, time."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    Camera,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    SceneError,
    Status,
)
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.node import LocalizerNode, OpenedScene

TIMEOUT_S = 10.0
CAMERA = Camera.pinhole(32, 24, 30.0, 30.0, 15.5, 11.5)
T_BASE_CAM = SE3.from_matrix(
    [[0.0, 0.0, 1.0, 0.3], [-1.0, 0.0, 0.0, 0.1], [0.0, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]
)
SECOND = 1_000_000_000
MS = 1_000_000


def true_pose(stamp_ns: int) -> SE3:
    """Where the fake localizer says the camera is."""
    seconds = stamp_ns * 1e-9 % 1000.0
    return SE3.exp([0.0, 0.0, 0.1 * seconds, 0.0, 0.0, 0.0]) @ SE3(np.eye(3), np.array([2.0, seconds, 1.0]))


class FakeLocalizer:
    """Answers every frame with ``true_pose``; what it shall answer instead is in ``behave``."""

    def __init__(self) -> None:
        self.T_base_cam: SE3 | None = None
        self.frames: list[Frame] = []
        self.calls: list[str] = []
        self.priors: list[PoseEstimate] = []
        self.odometry: list[int] = []
        self.seen_odometry: dict[int, list[int]] = {}
        self.seen_extrinsics: SE3 | None = None
        self.behave: Callable[[Frame, LocalizerOutput], LocalizerOutput] = lambda frame, output: output
        self.busy = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def process(self, frame: Frame) -> LocalizerOutput:
        self.busy.set()
        self.go_on.wait(TIMEOUT_S)
        last_ns = self.frames[-1].stamp_ns if self.frames else None
        back = last_ns is not None and frame.stamp_ns < last_ns
        if frame.stamp_ns == last_ns:
            raise FrameRejected("stamp_repeats", "the stamp repeats")
        self.frames.append(frame)
        self.seen_odometry[frame.stamp_ns] = list(self.odometry)
        self.seen_extrinsics = self.T_base_cam
        covariance = np.diag([1e-4, 1e-4, 1e-4, 0.01, 0.01, 0.01])
        estimate = PoseEstimate(frame.stamp_ns, true_pose(frame.stamp_ns), covariance, "fake")
        relative = None
        if last_ns is not None and not back:
            T = true_pose(last_ns).inverse() @ true_pose(frame.stamp_ns)
            relative = RelativePose(last_ns, frame.stamp_ns, T, covariance, "vo")
        timings_ms = {"network": 1.0, "total": 2.0}
        output = LocalizerOutput(
            frame.stamp_ns, Status.TRACKING, estimate, estimate, relative, "", timings_ms, reset=back
        )
        return self.behave(frame, output)

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        self.odometry.append(stamp_ns)

    def set_prior(self, prior: PoseEstimate) -> None:
        self.priors.append(prior)

    def relocalize(self) -> None:
        self.calls.append("relocalize")

    def reset(self) -> None:
        self.calls.append("reset")

    def close(self) -> None:
        self.calls.append("close")


class Robot:
    """The node, and beside it another node that plays the robot, with an executor each.

    They share a context, so that they find each other at once; processes of their own are in test_ros_live.
    """

    def __init__(self, *arguments: str, opener: Callable[..., OpenedScene] | None = None) -> None:
        self.fake = FakeLocalizer()
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        given = ["--ros-args", "-p", "scene:=somewhere", *arguments]
        self.opener = opener or (lambda path, config: OpenedScene(self.fake, "map"))
        self.node = LocalizerNode(
            lambda path, config: self.opener(path, config), context=self.context, cli_args=given
        )
        self.robot = rclpy.create_node("robot", context=self.context)
        self.received: dict[str, list[Any]] = {}
        self.changed = threading.Condition()
        self.executors = []
        for node in (self.node, self.robot):
            executor = SingleThreadedExecutor(context=self.context)
            executor.add_node(node)
            thread = threading.Thread(target=self._spin, args=(executor,), daemon=True)
            self.executors.append((executor, thread))
        self._publishers: dict[str, Any] = {}
        self.executors[1][1].start()

    @staticmethod
    def _spin(executor: SingleThreadedExecutor) -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    def start(self, activate: bool = True) -> Robot:
        """Spin the node, and take it to active through its lifecycle services, as a manager would."""
        self.executors[0][1].start()
        if activate:
            assert self.change(Transition.TRANSITION_CONFIGURE)
            assert self.change(Transition.TRANSITION_ACTIVATE)
        return self

    def close(self) -> None:
        for executor, thread in self.executors:
            executor.shutdown()
            if thread.is_alive():
                thread.join(TIMEOUT_S)
        self.node.destroy_node()
        self.robot.destroy_node()
        rclpy.try_shutdown(context=self.context)
        # What rclpy leaves to the garbage collector would still be seen by the next test.
        del self.node, self.robot, self.executors
        gc.collect()

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.robot.create_client(kind, name)
        assert client.wait_for_service(TIMEOUT_S), name
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        assert done.wait(TIMEOUT_S), f"{name} did not answer"
        self.robot.destroy_client(client)
        return future.result()

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "/localizer/change_state", request).success)

    def state(self) -> str:
        return str(self.call(GetState, "/localizer/get_state", GetState.Request()).current_state.label)

    def publisher(self, kind: type, topic: str, qos: QoSProfile | None = None) -> Any:
        """A publisher that the node is known to hear."""
        if topic not in self._publishers:
            publisher = self.robot.create_publisher(kind, topic, qos or QoSProfile(depth=10))
            self._publishers[topic] = publisher
            self.until(lambda: publisher.get_subscription_count() > 0, f"nobody subscribes to {topic}")
            # The node must know the publisher as well.
            self.until(
                lambda: any(
                    s.get_publisher_count() > 0 for s in self.node.subscriptions if s.topic_name == topic
                ),
                f"the node does not see the publisher of {topic}",
            )
        return self._publishers[topic]

    def listen(self, kind: type, topic: str) -> list[Any]:
        if topic not in self.received:
            messages: list[Any] = []
            self.received[topic] = messages

            def on_message(message: Any) -> None:
                with self.changed:
                    messages.append(message)
                    self.changed.notify_all()

            subscription = self.robot.create_subscription(kind, topic, on_message, QoSProfile(depth=100))
            self.until(lambda: subscription.get_publisher_count() > 0, f"nobody publishes {topic}")
            self.until(
                lambda: any(
                    p.get_subscription_count() > 0 for p in self.node.publishers if p.topic_name == topic
                ),
                f"the node does not see the subscriber of {topic}",
            )
        return self.received[topic]

    def until(self, condition: Callable[[], Any], complaint: str) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        with self.changed:
            while not condition():
                assert time.monotonic() < deadline_s, complaint
                self.changed.wait(0.01)

    def info(self, camera: Camera = CAMERA, stamp_ns: int = SECOND) -> None:
        self.publisher(CameraInfo, "/camera_info").publish(convert.info_msg(camera, stamp_ns, "camera"))

    def image(self, stamp_ns: int, shade: int = 100) -> None:
        pixels = np.full((CAMERA.height_px, CAMERA.width_px, 3), shade, np.uint8)
        self.send(convert.image_msg(pixels, stamp_ns, "camera"))

    def send(self, message: Image) -> None:
        self.publisher(Image, "/image").publish(message)

    def answered(self, count: int) -> None:
        self.until(
            lambda: self.node.health.processed >= count,
            f"expected {count} answers, got {self.node.health.processed}; {self.node.health.dropped}",
        )

    def dropped(self, kind: str, count: int = 1) -> None:
        self.until(
            lambda: self.node.health.dropped[kind] >= count,
            f"expected {count} {kind}, got {dict(self.node.health.dropped)}",
        )

    def ready(self) -> Robot:
        """Everything the first frame needs is there."""
        self.info()
        self.publisher(Image, "/image")
        self.until(lambda: self.node._camera is not None, "the node has no camera")
        return self


@pytest.fixture
def robot(request: pytest.FixtureRequest) -> Iterator[Robot]:
    """A robot whose node got the ROS arguments of the test's parameter, not started yet."""
    made = Robot(*getattr(request, "param", ()))
    yield made
    made.fake.go_on.set()
    made.close()


def p(*parameters: str) -> list[str]:
    return [word for parameter in parameters for word in ("-p", parameter)]


def static_tf(robot: Robot, T_parent_child: SE3 = T_BASE_CAM) -> None:
    qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    transform = convert.transform_msg(T_parent_child, SECOND, "base_link", "camera")
    robot.publisher(TFMessage, "/tf_static", qos).publish(TFMessage(transforms=[transform]))


# --- what is published ---


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


def test_what_people_look_at_is_made_only_while_they_look(robot: Robot) -> None:
    robot.start().ready()
    for count in (1, 2, 3):
        robot.image(count * SECOND)
        robot.answered(count)
    for kind, name in ((PathMsg, "path"), (MarkerArray, "markers"), (Image, "debug_image")):
        messages = robot.listen(kind, f"/localizer/{name}")
        robot.until(lambda m=messages: m, f"no {name}")
    assert [convert.stamp_ns(q.header.stamp) for q in robot.received["/localizer/path"][0].poses] == [
        SECOND,
        2 * SECOND,
        3 * SECOND,
    ]
    image = robot.received["/localizer/debug_image"][0]
    assert (image.width, image.height) == (32, 24)
    kinds = {marker.ns for marker in robot.received["/localizer/markers"][0].markers}
    assert kinds == {"camera", "position_3_sigma"}


@pytest.mark.parametrize("robot", [p("base_frame:=base_link")], indirect=True)
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


@pytest.mark.parametrize(
    "robot",
    [p("base_frame:=base_link", "odom_frame:=odom", "map_frame:=world", "transform_tolerance:=0.05")],
    indirect=True,
)
def test_map_to_odom_waits_for_the_odometry_of_the_same_time(robot: Robot) -> None:
    robot.start().ready()
    static_tf(robot)
    poses = robot.listen(PoseStamped, "/localizer/pose")
    tf = robot.listen(TFMessage, "/tf")

    def odom_base(stamp: int) -> SE3:
        return SE3(np.eye(3), np.array([stamp * 1e-9, 0.0, 0.0]))

    def send_odometry(stamp: int) -> None:
        transform = convert.transform_msg(odom_base(stamp), stamp, "odom", "base_link")
        robot.publisher(TFMessage, "/tf").publish(TFMessage(transforms=[transform]))

    def of_the_localizer() -> list[Any]:
        return [t for m in tf for t in m.transforms if t.header.frame_id == "world"]

    send_odometry(4 * SECOND)
    stamp = 4 * SECOND + 50 * MS
    robot.image(stamp)
    robot.until(lambda: poses, "no pose")
    assert not of_the_localizer(), "combined with odometry of another time"
    send_odometry(4 * SECOND + 100 * MS)
    robot.until(of_the_localizer, "no map -> odom")
    transform = of_the_localizer()[0]
    assert transform.child_frame_id == "odom"
    assert convert.stamp_ns(transform.header.stamp) == stamp + 50 * MS
    T_map_base = true_pose(stamp) @ T_BASE_CAM.inverse()
    expected = T_map_base @ odom_base(stamp).inverse()
    # The odometry is interpolated between two samples.
    np.testing.assert_allclose(convert.transform_from_msg(transform).matrix(), expected.matrix(), atol=1e-9)


@pytest.mark.parametrize("robot", [p("publish_tf:=false")], indirect=True)
def test_tf_can_be_switched_off(robot: Robot) -> None:
    robot.start().ready()
    poses = robot.listen(PoseStamped, "/localizer/pose")
    robot.image(SECOND)
    robot.until(lambda: poses, "no pose")
    assert robot.robot.count_publishers("/tf") == 0


@pytest.mark.parametrize("robot", [p("image_transport:=compressed")], indirect=True)
def test_compressed_images(robot: Robot) -> None:
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
    robot.until(lambda: _knows(robot, "base_link", "camera"), "no static transform")
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


# --- newest wins ---


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


# --- bad input ---


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
    diagnosis = robot.node.health.diagnose(True, False, 1, "/image")
    assert diagnosis.level == "WARN" and "stamp_repeats" in diagnosis.message


def test_random_messages_never_stop_the_node(robot: Robot, rng: np.random.Generator) -> None:
    robot.start().ready()
    encodings = ["mono8", "rgb8", "bgr8", "mono16", "yuv422", "bayer_grbg8", "bgra8", "", "x" * 300]
    count = 60
    for index in range(count):
        message = Image(
            header=convert.header(
                int(rng.integers(0, 2**31)) * SECOND, str(rng.choice(["", "camera", "/a b"]))
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
    robot.image(2**31 * SECOND - 1)
    robot.answered(done + 1)
    assert robot.state() == "active"


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


# --- camera info ---


def test_missing_camera_info_is_reported_and_nothing_is_guessed(robot: Robot) -> None:
    robot.start()
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    for index in range(1, 4):
        robot.image(index * SECOND)
        robot.until(lambda index=index: robot.node.health.received == index, "image did not arrive")
    robot.dropped("no_camera_info", 2)
    robot.until(lambda: any("no_camera_info" in m.status[0].message for m in diagnostics), "not reported")
    assert not robot.fake.frames
    robot.info()
    robot.answered(1)
    # The newest waited for its calibration.
    assert robot.fake.frames[0].stamp_ns == 3 * SECOND


def test_changed_and_unusable_camera_info(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    robot.info(Camera.pinhole(32, 24, 50.0, 50.0, 15.5, 11.5))
    robot.until(lambda: robot.node._camera is not None and robot.node._camera.K[0, 0] == 50.0, "not taken")
    robot.image(2 * SECOND)
    robot.answered(2)
    assert [frame.camera.K[0, 0] for frame in robot.fake.frames] == [30.0, 50.0]
    robot.publisher(CameraInfo, "/camera_info").publish(CameraInfo(width=32, height=24))
    robot.until(lambda: robot.node._camera is None, "uncalibrated camera was taken")
    robot.image(3 * SECOND)
    robot.image(4 * SECOND)
    robot.dropped("camera_info")
    assert "not calibrated" in robot.node.health.diagnose(True, False, 1, "/image").message


# --- time ---


def test_time_that_jumps_back_starts_over_and_says_so(robot: Robot) -> None:
    robot.start().ready()
    paths = robot.listen(PathMsg, "/localizer/path")
    for count, stamp in enumerate((100, 101, 102, 5, 6), start=1):
        robot.image(stamp * SECOND)
        robot.answered(count)
    robot.until(lambda: paths and len(paths[-1].poses) == 2, "the path still has poses of the first round")
    assert robot.node.health.jumps_back == 1
    values = robot.node.health.diagnose(True, False, 1, "/image").values
    assert values["time jumps back"] == "1"


@pytest.mark.parametrize("robot", [p("use_sim_time:=true")], indirect=True)
def test_diagnostics_go_on_while_simulated_time_stands_still(robot: Robot) -> None:
    robot.start()
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    robot.until(lambda: len(diagnostics) >= 2, "no diagnostics")
    assert convert.stamp_ns(diagnostics[-1].header.stamp) == 0


# --- initial pose, services ---


@pytest.mark.parametrize("robot", [p("base_frame:=base_link")], indirect=True)
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
    robot.until(lambda: robot.node._info_frame == "camera", "no camera_info")
    robot.until(lambda: _knows(robot, "base_link", "camera"), "no static transform")
    publisher.publish(good)
    robot.until(lambda: robot.fake.priors, "no prior")
    assert len(robot.fake.priors) == 1
    expected = T_map_base @ T_BASE_CAM
    np.testing.assert_allclose(robot.fake.priors[0].T_map_cam.matrix(), expected.matrix(), atol=1e-12)


def _knows(robot: Robot, target: str, source: str) -> bool:
    try:
        robot.node._extrinsics(target, source)
    except FrameRejected:
        return False
    return True


def test_services(robot: Robot) -> None:
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


# --- lifecycle and parameters ---


def test_every_transition_and_back(robot: Robot) -> None:
    robot.start(activate=False)
    assert robot.state() == "unconfigured"
    for round_ in range(2):
        assert robot.change(Transition.TRANSITION_CONFIGURE)
        assert robot.state() == "inactive"
        for _ in range(2):
            assert robot.change(Transition.TRANSITION_ACTIVATE)
            assert robot.state() == "active"
            assert robot.change(Transition.TRANSITION_DEACTIVATE)
            assert robot.state() == "inactive"
        assert robot.change(Transition.TRANSITION_CLEANUP)
        assert robot.state() == "unconfigured"
        assert robot.fake.calls.count("close") == round_ + 1
    assert robot.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert robot.state() == "finalized"


def test_frames_flow_again_after_deactivation_and_not_during_it(robot: Robot) -> None:
    robot.start().ready()
    robot.image(SECOND)
    robot.answered(1)
    assert robot.change(Transition.TRANSITION_DEACTIVATE)
    assert robot.robot.count_subscribers("/image") == 0
    assert robot.change(Transition.TRANSITION_ACTIVATE)
    robot.until(lambda: robot._publishers["/image"].get_subscription_count() > 0, "no subscription")
    robot.until(lambda: robot.node._image_publishers > 0, "the node does not see the publisher")
    robot.image(2 * SECOND)
    robot.answered(2)


def test_a_missing_scene_is_a_failure_with_a_reason_and_can_be_tried_again(robot: Robot) -> None:
    def missing(path: Path, config: LocalizerConfig) -> OpenedScene:
        raise SceneError(f"{path}: no such scene")

    good, robot.opener = robot.opener, missing
    robot.start(activate=False)
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.node.failure == "somewhere: no such scene"
    assert robot.state() == "unconfigured"
    robot.opener = good
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "inactive"


def test_an_unexpected_error_while_configuring_leaves_an_unconfigured_node(robot: Robot) -> None:
    def broken(path: Path, config: LocalizerConfig) -> OpenedScene:
        raise ZeroDivisionError("a bug")

    robot.opener = broken
    robot.start(activate=False)
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "unconfigured"


def test_parameters_are_locked_while_configured(robot: Robot) -> None:
    robot.start()

    def set_lag(value: float) -> Any:
        parameter = Parameter("smoother.lag_s", value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return robot.call(SetParameters, "/localizer/set_parameters", request).results[0]

    assert "clean it up" in set_lag(5.0).reason
    assert robot.change(Transition.TRANSITION_DEACTIVATE) and robot.change(Transition.TRANSITION_CLEANUP)
    assert not set_lag(1e6).successful
    assert set_lag(5.0).successful
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.node._config.smoother.lag_s == 5.0


# --- QoS ---


@pytest.mark.parametrize("robot", [p("image_reliability:=reliable")], indirect=True)
def test_qos_that_does_not_fit_names_both_sides(robot: Robot) -> None:
    robot.start()
    qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    robot.robot.create_publisher(Image, "/image", qos)
    robot.until(lambda: "QoS /image" in robot.node.health.notes, "no warning")
    note = robot.node.health.notes["QoS /image"]
    assert "/robot offers best_effort" in note and "asked for reliable" in note


@pytest.mark.parametrize(
    "robot", [p("qos_overrides./image.subscription.reliability:=reliable")], indirect=True
)
def test_qos_can_be_overridden(robot: Robot) -> None:
    robot.start()
    infos = robot.node.get_subscriptions_info_by_topic("/image")
    assert [info.qos_profile.reliability for info in infos] == [QoSReliabilityPolicy.RELIABLE]
