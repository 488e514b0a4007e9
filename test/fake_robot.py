"""A robot around the node, over real DDS: a localizer that is easy to predict, and a node with sensors and manager."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError
from localizer_ros.core.types import (
    Array,
    Camera,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    RelativePose,
    Status,
)
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.node import LocalizerNode
from localizer_ros.ros.online_localizer import OpenedScene

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
        self.frames: list[Frame] = []
        self.calls: list[str] = []
        self.configs: list[LocalizerConfig] = []
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
        self.seen_extrinsics = frame.T_base_cam
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

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        self.odometry.append(stamp_ns)

    def reconfigure(self, config: LocalizerConfig) -> None:
        self.configs.append(config)

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

    They share a context, so that they find each other at once; processes of their own are in test_live.
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

    def change_by_label(self, label: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=label))
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
        self.until(lambda: self.node._intake._frames[""].camera is not None, "the node has no camera")
        return self


def parameters(*values: str) -> list[str]:
    """ROS arguments that set parameters, each given as ``name:=value``."""
    return [word for value in values for word in ("-p", value)]


def static_tf(robot: Robot, T_parent_child: SE3 = T_BASE_CAM) -> None:
    qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    transform = convert.transform_msg(T_parent_child, SECOND, "base_link", "camera")
    robot.publisher(TFMessage, "/tf_static", qos).publish(TFMessage(transforms=[transform]))


def knows_transform(robot: Robot, target: str, source: str) -> bool:
    try:
        robot.node._transforms.lookup(target, source)
    except TransformError:
        return False
    return True
