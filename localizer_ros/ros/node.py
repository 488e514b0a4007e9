"""The ROS 2 node: parameters to config, message to type, one call, type to message.

The executor's thread receives and answers services; the worker's thread owns the localizer and publishes
poses. A frame that cannot be used is a counted drop with a reason, never an exception or a made-up pose.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from localizer_ros.core.config.runtime import LocalizerConfig, RunConfig
from localizer_ros.core.robot_pose import BasePose, base_pose, base_twist, camera_pose
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError
from localizer_ros.core.types import (
    Camera,
    ConfigError,
    Frame,
    FrameRejected,
    LocalizerError,
    LocalizerOutput,
    PoseEstimate,
    Status,
)
from localizer_ros.datasets.calibration import camera_from_info
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.display import debug_image, pose_markers
from localizer_ros.ros.health import Health
from localizer_ros.ros.odometry_buffer import OdometryGate
from localizer_ros.ros.parameters import check_change, declare_parameters, read_parameters
from localizer_ros.ros.tf import MapBroadcaster, TransformListener
from localizer_ros.ros.worker import Worker

NODE_NAME = "localizer"
# The image waits this long for an odometry sample that is due; both leave the robot at about the same time.
ODOMETRY_WAIT_S = 0.02
DISPLAY_PERIOD_S = 0.2
DIAGNOSTICS_PERIOD_S = 1.0
WARNING_PERIOD_S = 5.0
STOP_TIMEOUT_S = 10.0


class OnlineLocalizer(Protocol):
    """What the node needs of ``localization.localizer.Localizer``."""

    T_base_cam: SE3 | None

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to one frame."""
        ...

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        """A sample of external odometry."""
        ...

    def set_prior(self, prior: PoseEstimate) -> None:
        """Start over at a given pose."""
        ...

    def relocalize(self) -> None:
        """Find the pose again."""
        ...

    def reset(self) -> None:
        """Forget everything but the scene."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedScene:
    """A localizer and the frame its poses are in."""

    localizer: OnlineLocalizer
    map_frame: str


Opener = Callable[[Path, LocalizerConfig], OpenedScene]


def open_scene(path: Path, config: LocalizerConfig) -> OpenedScene:
    """The real thing. Raises SceneError or BackendError."""
    # Late: importing the networks' runtime takes longer than telling a user of a misspelt parameter.
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.scene.bundle import Scene

    return OpenedScene(open_localizer(path, config, threaded=True), Scene.load(path).map_frame)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """An image on its way to the worker with what was known of it when it arrived."""

    message: Image | CompressedImage
    camera: Camera
    camera_frame: str
    base_frame: str
    T_base_cam: SE3
    T_odometry_cam: SE3 | None
    arrived_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """The last answer, for displays."""

    job: _Job
    output: LocalizerOutput
    pose: BasePose | None


class LocalizerNode(LifecycleNode):
    """Lifecycle node ``localizer``; see ``docs/ros.md`` for its interface.

    Args:
        opener: makes the localizer, in the worker's thread.
        arguments: of ``rclpy.node.Node``.

    Raises:
        ConfigError: an unknown parameter, or a value out of range.
    """

    def __init__(self, opener: Opener = open_scene, **arguments: Any) -> None:
        super().__init__(NODE_NAME, **arguments)
        declare_parameters(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._opener = opener
        self._config = RunConfig()
        self.failure = ""
        """Why the last transition failed, in one line."""
        self.health = Health()
        self._worker: Worker[_Job, OnlineLocalizer] | None = None
        self._active = self._paused = False
        # Camera images must not wait behind a slow service call, nor the other way round.
        self._group = MutuallyExclusiveCallbackGroup()
        self._publishers_made: list[Any] = []
        self._subscriptions_made: list[Any] = []
        self._services_made: list[Any] = []
        self._timers_made: list[Any] = []
        self._forget()

    @property
    def autostart(self) -> bool:
        """Whether :func:`main` takes the node to active by itself."""
        return read_parameters(self).autostart

    # --- lifecycle: rclpy swallows exceptions of these callbacks, so none may leave them ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, open the scene, create publishers and services."""
        return self._guarded_transition("configure", self._configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        return self._guarded_transition("activate", self._activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the scene stays open."""
        return self._guarded_transition("deactivate", self._deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the scene; parameters may change again."""
        return self._guarded_transition("cleanup", self._teardown, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close everything."""
        return self._guarded_transition("shutdown", self._teardown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured after an unexpected error."""
        return self._guarded_transition("error handling", self._teardown, state)

    def destroy_node(self) -> None:
        """Close everything that is still open, then the node."""
        try:
            self._teardown(None)
        finally:
            # rclpy leaves the state machine, and with it the node's services on the network, to the garbage
            # collector.
            self._state_machine.destroy_when_not_in_use()
            super().destroy_node()

    def _guarded_transition(
        self,
        name: str,
        transition: Callable[[LifecycleState | None], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        self.failure = ""
        try:
            return transition(state)
        except LocalizerError as error:
            self.failure = str(error)
            self.get_logger().error(f"cannot {name}: {error}")
            if name == "configure":
                self._teardown(None)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            self.get_logger().error(f"{name} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    def _configure(self, state: LifecycleState | None) -> TransitionCallbackReturn:
        config = read_parameters(self)
        self._config = config
        if not config.scene:
            raise ConfigError("parameter scene: expected the folder of a scene, got nothing")
        path = Path(config.scene).expanduser()
        self._forget()
        self.health = Health(search_latency_s=self._config.search.latency_s)

        def create() -> OnlineLocalizer:
            opened = self._opener(path, self._config)
            self._map_frame = config.map_frame or opened.map_frame
            return opened.localizer

        self._worker = Worker(
            create, self._handle, lambda localizer: localizer.close(), self._on_worker_error
        )
        started = time.monotonic()
        self._worker.start()
        self._scene_name = path.name
        self._create_publishers()
        self._create_services()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        # Simulated time may stand still; whoever waits for it wants to read why.
        for period_s, callback in (
            (DIAGNOSTICS_PERIOD_S, self._publish_diagnostics),
            (DISPLAY_PERIOD_S, self._publish_display),
        ):
            self._timers_made.append(self.create_timer(period_s, self._guard(callback), clock=steady))
        self.get_logger().info(
            f"scene {path} opened in {time.monotonic() - started:.1f} s; poses in frame {self._map_frame!r}"
        )
        return super().on_configure(state)

    def _activate(self, state: LifecycleState | None) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._active = True
        self._create_subscriptions()
        self.get_logger().info(
            f"active: waiting for {self._image_topic} and {self.resolve_topic_name('camera_info')}; "
            f"images are taken as {'rectified' if self._config.image_rectified else 'not rectified'}"
        )
        self._publish_diagnostics()
        return result

    def _deactivate(self, state: LifecycleState | None) -> TransitionCallbackReturn:
        self._active = False
        if self._worker is not None:
            self._worker.mailbox.clear()
            # The frame in work still publishes; only then may the publishers go silent.
            idle = threading.Event()
            self._worker.mailbox.command(lambda localizer: localizer.reset())
            self._worker.mailbox.command(lambda localizer: idle.set())
            idle.wait(STOP_TIMEOUT_S)
        self._forget_motion()
        self._shown = None
        self._destroy_subscriptions()
        self._publish_diagnostics()
        return super().on_deactivate(state)

    def _teardown(self, state: LifecycleState | None) -> TransitionCallbackReturn:
        self._active = False
        if self._worker is not None and not self._worker.stop(STOP_TIMEOUT_S):
            self.get_logger().error("the localizer does not end; its thread is left behind")
        self._worker = None
        self._destroy_subscriptions()
        for timer in self._timers_made:
            self.destroy_timer(timer)
        for service in self._services_made:
            self.destroy_service(service)
        for publisher in self._publishers_made:
            self.destroy_lifecycle_publisher(publisher)
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        self._timers_made, self._services_made, self._publishers_made = [], [], []
        self._forget()
        return TransitionCallbackReturn.SUCCESS

    def _forget(self) -> None:
        """The state of an unconfigured node."""
        self._map_frame = self._scene_name = self._image_topic = ""
        self._paused = False
        self._diagnostics: Any = None
        self._broadcaster: MapBroadcaster | None = None
        self._listener: TransformListener | None = None
        self._camera: Camera | None = None
        self._camera_error = ""
        self._info_frame = ""
        self._odometry_frame = ""
        self._odometry: OdometryGate[SE3] = OdometryGate()
        self._waiting: tuple[Image | CompressedImage, float] | None = None
        self._path: deque[PoseStamped] = deque(maxlen=self._config.path_length)
        self._shown: _Shown | None = None
        self._image_publishers = 0

    def _forget_motion(self) -> None:
        """Time went back, or a gap: nothing that moves is known any more."""
        self._path.clear()
        self._odometry.reset()
        if self._listener is not None:
            self._listener.clear_moving()
        if self._broadcaster is not None:
            self._broadcaster.forget()

    # --- what is created ---

    def _create_publishers(self) -> None:
        def output(kind: type, name: str, depth: int = 10) -> Any:
            publisher = self.create_lifecycle_publisher(
                kind,
                f"~/{name}",
                QoSProfile(depth=depth),
                event_callbacks=PublisherEventCallbacks(
                    incompatible_qos=lambda event: self._on_output_qos(name, event)
                ),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._publishers_made.append(publisher)
            return publisher

        self._pose = output(PoseStamped, "pose")
        self._pose_with_covariance = output(PoseWithCovarianceStamped, "pose_with_covariance")
        self._odometry_out = output(Odometry, "odometry")
        self._global_pose = output(PoseWithCovarianceStamped, "global_pose")
        self._path_out = output(PathMsg, "path", depth=1)
        self._markers = output(MarkerArray, "markers", depth=1)
        self._debug_image = output(Image, "debug_image", depth=1)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def _create_services(self) -> None:
        for kind, name, callback in (
            (Trigger, "relocalize", self._on_relocalize),
            (Trigger, "reset", self._on_reset),
            (SetBool, "pause", self._on_pause),
        ):
            self._services_made.append(self.create_service(kind, f"~/{name}", callback))

    def _create_subscriptions(self) -> None:
        node = self._config

        def subscribe(
            kind: type,
            topic: str,
            callback: Callable[[Any], None],
            reliability: str,
            on_matched: Callable[[Any], None] | None = None,
            on_lost: Callable[[Any], None] | None = None,
            depth: int = 5,
        ) -> None:
            qos = QoSProfile(depth=depth, reliability=QoSReliabilityPolicy[reliability.upper()])
            subscription = self.create_subscription(
                kind,
                topic,
                self._guard(callback),
                qos,
                callback_group=self._group,
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=lambda event: self._on_input_qos(topic, qos, event),
                    matched=on_matched,
                    message_lost=on_lost,
                ),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._subscriptions_made.append(subscription)

        self._listener = TransformListener(self, bool(node.odom_frame), self._guard(self._on_transforms))
        if node.publish_tf:
            self._broadcaster = MapBroadcaster(
                self,
                self._listener,
                self._map_frame,
                node.odom_frame,
                round(node.transform_tolerance * 1e9),
            )
        # In this order the executor serves them when several are ready: what a frame needs comes before it.
        subscribe(CameraInfo, "camera_info", self._on_camera_info, node.camera_info_reliability)
        if self._config.odometry.use:
            # Every sample counts, and they come in bursts.
            subscribe(Odometry, "odom", self._on_odometry, "best_effort", depth=200)
        subscribe(PoseWithCovarianceStamped, "initialpose", self._on_initialpose, "reliable")
        topic, kind = self.resolve_topic_name("image"), Image
        if node.image_transport == "compressed":
            # As image_transport names it: beside the raw topic, after remapping.
            topic, kind = f"{topic}/compressed", CompressedImage
        self._image_topic = topic
        subscribe(
            kind,
            topic,
            self._on_image,
            node.image_reliability,
            self._on_image_publishers,
            self._on_images_lost,
        )

    def _destroy_subscriptions(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []
        if self._broadcaster is not None:
            self._broadcaster.destroy()
        if self._listener is not None:
            self._listener.destroy()
        self._broadcaster = self._listener = None
        self._waiting = None

    # --- executor's thread: messages ---

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.health.frame_received()
        self._offer(message, time.monotonic())

    def _offer(self, message: Image | CompressedImage, arrived_s: float) -> None:
        """Hand an image to the worker once everything it needs is known; until then the newest one waits."""
        if self._worker is None or not self._active:
            return
        if self._paused:
            self.health.frame_dropped("paused", "the node is paused")
            return
        try:
            job = self._job(message, arrived_s)
        except FrameRejected as error:
            # Camera info and static transforms often arrive just after the first image.
            if self._waiting is not None:
                self._drop(error)
            self._waiting = (message, arrived_s)
            return
        if self._waiting is not None:
            self._waiting = None
            self.health.frame_dropped("superseded", "a newer frame came before this one was complete")
        if self._worker.mailbox.put(job) is not None:
            self.health.frame_dropped("superseded", "a newer frame came before this one was processed")

    def _job(self, message: Image | CompressedImage, arrived_s: float) -> _Job:
        if self._camera is None:
            if self._camera_error:
                raise FrameRejected("camera_info", self._camera_error)
            raise FrameRejected(
                "no_camera_info", f"nothing received on {self.resolve_topic_name('camera_info')}"
            )
        base_frame = self._config.base_frame
        camera_frame = (message.header.frame_id or self._info_frame).lstrip("/")
        if not base_frame:
            # The pose of the camera itself is asked for: here, and only here, the two frames are one.
            T_base_cam: SE3 = SE3.identity()
        elif not camera_frame:
            raise FrameRejected("no_frame_id", "the image has no frame_id, so base_frame cannot be used")
        else:
            T_base_cam = self._extrinsics(base_frame, camera_frame)
        T_odometry_cam = None
        if self._odometry_frame and camera_frame:
            try:
                T_odometry_cam = self._extrinsics(self._odometry_frame, camera_frame)
                self.health.note("odometry", "used")
            except FrameRejected as error:
                self.health.note("odometry", f"not used: {error}")
        return _Job(
            message,
            self._camera,
            camera_frame,
            base_frame or camera_frame,
            T_base_cam,
            T_odometry_cam,
            arrived_s,
        )

    def _extrinsics(self, base_frame: str, camera_frame: str) -> SE3:
        assert self._listener is not None
        try:
            return self._listener.lookup(base_frame, camera_frame)
        except TransformError as error:
            raise FrameRejected("no_extrinsics", str(error)) from error

    def _retry_waiting(self) -> None:
        if self._waiting is not None:
            (message, arrived_s), self._waiting = self._waiting, None
            self._offer(message, arrived_s)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info_frame = message.header.frame_id
        try:
            camera = camera_from_info(message, self._config.image_rectified)
        except ConfigError as error:
            if self._camera_error != str(error):
                self.get_logger().error(f"camera_info is ignored: {error}")
            self._camera, self._camera_error = None, str(error)
            self.health.note("camera", self._camera_error)
            return
        self._camera_error = ""
        if self._camera is not None and camera.same_as(self._camera):
            return
        if self._camera is not None:
            self.get_logger().warning(f"camera_info changed: now {_camera_text(camera)}")
        self._camera = camera
        self.health.note("camera", _camera_text(camera))
        self._retry_waiting()

    def _on_transforms(self) -> None:
        self._retry_waiting()
        if self._broadcaster is not None:
            self._broadcaster.retry()

    def _on_odometry(self, message: Odometry) -> None:
        try:
            sample = convert.odometry_from_msg(message)
        except ValueError as error:
            self.get_logger().warning(f"odom is ignored: {error}", throttle_duration_sec=WARNING_PERIOD_S)
            return
        frame = (sample.base_frame or self._config.base_frame).lstrip("/")
        if not frame:
            self.health.note("odometry", "not used: odom has no child_frame_id and base_frame is not set")
            return
        self._odometry_frame = frame
        self._odometry.add(sample.stamp_ns, sample.T_odom_base)

    def _on_initialpose(self, message: PoseWithCovarianceStamped) -> None:
        frame = message.header.frame_id.lstrip("/")
        base_frame = self._config.base_frame
        try:
            if frame != self._map_frame:
                raise ValueError(f"its frame is {frame!r}, expected {self._map_frame!r}")
            pose = convert.base_pose_from_msg(message)
        except ValueError as error:
            self.get_logger().warning(f"initialpose is ignored: {error}")
            return
        if self._worker is None:
            return
        camera_frame = self._shown.job.camera_frame if self._shown is not None else self._info_frame
        try:
            T_base_cam = self._extrinsics(base_frame, camera_frame) if base_frame else SE3.identity()
        except FrameRejected as error:
            self.get_logger().warning(f"initialpose is ignored: {error}")
            return
        prior = camera_pose(pose, T_base_cam, "initialpose")
        self._worker.mailbox.command(lambda localizer: localizer.set_prior(prior))
        self.get_logger().info("initialpose taken: starting over there with the next frame")

    # --- executor's thread: services, QoS, parameters ---

    def _on_relocalize(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._command(response, "relocalize", lambda localizer: localizer.relocalize())

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget_motion()
        return self._command(response, "reset", lambda localizer: localizer.reset())

    def _command(
        self, response: Trigger.Response, name: str, command: Callable[[OnlineLocalizer], None]
    ) -> Trigger.Response:
        if self._worker is None:
            response.success, response.message = False, "the node is not configured"
            return response
        if self._broadcaster is not None:
            self._broadcaster.forget()
        self._worker.mailbox.command(command)
        self.get_logger().info(f"{name}: starting over with the next frame")
        response.success, response.message = True, "starting over with the next frame"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = bool(request.data)
        if self._paused and self._worker is not None and self._worker.mailbox.clear() is not None:
            self.health.frame_dropped("paused", "the node is paused")
        response.success, response.message = True, "paused" if self._paused else "running"
        self._publish_diagnostics()
        return response

    def _on_image_publishers(self, event: Any) -> None:
        self._image_publishers = event.current_count

    def _on_images_lost(self, event: Any) -> None:
        self.health.frames_lost(event.total_count_change)
        self.get_logger().warning(
            f"{event.total_count} image(s) lost on the way so far: publisher and node both need the Fast DDS "
            "profile config/fastdds.xml (see docs/ros.md)",
            throttle_duration_sec=WARNING_PERIOD_S,
        )

    def _on_input_qos(self, topic: str, ours: QoSProfile, event: Any) -> None:
        publishers = self.get_publishers_info_by_topic(topic)
        theirs = ", ".join(f"{_node_name(info)} offers {_qos_text(info.qos_profile)}" for info in publishers)
        resolved = self.resolve_topic_name(topic)
        self.get_logger().warning(
            f"QoS of {resolved} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no "
            f"messages will come: {theirs or 'the publisher'}; this node asks for {_qos_text(ours)}. Set "
            f"image_reliability or camera_info_reliability, or qos_overrides.{resolved}.subscription."
            "reliability"
        )
        self.health.note(f"QoS {resolved}", f"does not fit: {theirs}; asked for {_qos_text(ours)}")

    def _on_output_qos(self, name: str, event: Any) -> None:
        topic = self.resolve_topic_name(f"~/{name}")
        theirs = ", ".join(
            f"{_node_name(info)} asks for {_qos_text(info.qos_profile)}"
            for info in self.get_subscriptions_info_by_topic(topic)
        )
        self.get_logger().warning(
            f"QoS of {topic} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no messages "
            f"will be sent: {theirs or 'the subscriber'}; this node offers {_qos_text(QoSProfile(depth=10))}"
        )

    def _on_set_parameters(self, changes: list[Parameter]) -> Any:
        return check_change(self, changes, locked=self._worker is not None)

    # --- worker's thread ---

    def _handle(self, localizer: OnlineLocalizer, job: _Job, waited_s: float) -> None:
        try:
            frame = convert.frame_from_msg(job.message, job.camera)
            localizer.T_base_cam = job.T_odometry_cam
            for stamp_ns, T_odom_base in self._odometry.release(frame.stamp_ns, ODOMETRY_WAIT_S):
                localizer.add_odometry(stamp_ns, T_odom_base)
            output = localizer.process(frame)
        except FrameRejected as error:
            self._drop(error)
            return
        except LocalizerError as error:
            self._drop(FrameRejected("failed", str(error)))
            return
        except Exception as error:
            # The next frame may be fine; the node of a moving robot does not die of one.
            self.get_logger().error(
                f"frame failed:\n{traceback.format_exc()}", throttle_duration_sec=WARNING_PERIOD_S
            )
            self._drop(FrameRejected("failed", f"{type(error).__name__}: {error}"))
            return
        self._publish(job, output, waited_s)

    def _publish(self, job: _Job, output: LocalizerOutput, waited_s: float) -> None:
        broadcaster = self._broadcaster
        if output.reset:
            self._start_over(output)
            if broadcaster is not None:
                broadcaster.forget()
        pose = None
        if output.estimate is not None and output.status is not Status.LOST:
            pose = base_pose(output.estimate, job.T_base_cam)
            if not pose.finite:
                self._drop(FrameRejected("not_finite", "the estimate has values that are not finite"))
                return
        if pose is not None:
            self._publish_pose(job, output, pose, broadcaster)
        elif broadcaster is not None:
            broadcaster.forget()
        if output.absolute is not None:
            absolute = base_pose(output.absolute, job.T_base_cam)
            if absolute.covariance is not None and absolute.finite:
                self._global_pose.publish(convert.pose_with_covariance_msg(absolute, self._map_frame))
        self._shown = _Shown(job, output, pose)
        if self.health.frame_processed(output, waited_s):
            line = f"{output.status.value}{': ' + output.reason if output.reason else ''}"
            if output.status is Status.TRACKING:
                self.get_logger().info(line)
            else:
                self.get_logger().warning(line)
            self._publish_diagnostics()

    def _publish_pose(
        self,
        job: _Job,
        output: LocalizerOutput,
        pose: BasePose,
        broadcaster: MapBroadcaster | None,
    ) -> None:
        message = convert.pose_stamped_msg(pose, self._map_frame)
        self._pose.publish(message)
        if broadcaster is not None and job.base_frame:
            broadcaster.send(pose.stamp_ns, pose.T_map_base, job.base_frame)
        elif not job.base_frame:
            self.get_logger().warning(
                "no TF: neither the image nor camera_info has a frame_id",
                throttle_duration_sec=WARNING_PERIOD_S,
            )
        age_s = (self.get_clock().now().nanoseconds - pose.stamp_ns) * 1e-9
        self.health.pose_published(time.monotonic() - job.arrived_s, age_s)
        if pose.covariance is not None:
            self._pose_with_covariance.publish(convert.pose_with_covariance_msg(pose, self._map_frame))
            twist = base_twist(output.relative, job.T_base_cam) if output.relative else None
            self._odometry_out.publish(convert.odometry_msg(pose, twist, self._map_frame, job.base_frame))
        self._path.append(message)

    def _start_over(self, output: LocalizerOutput) -> None:
        if self._shown is not None and output.stamp_ns < self._shown.output.stamp_ns:
            back_s = (self._shown.output.stamp_ns - output.stamp_ns) * 1e-9
            self.get_logger().warning(f"time jumped back by {back_s:.1f} s: started over")
            self.health.jumps_back += 1
            self._path.clear()

    def _drop(self, error: FrameRejected) -> None:
        self.health.frame_dropped(error.kind, str(error))
        self.get_logger().warning(
            f"frame dropped ({error.kind}): {error}", throttle_duration_sec=WARNING_PERIOD_S
        )

    def _on_worker_error(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self.get_logger().error(f"worker: {text}", throttle_duration_sec=WARNING_PERIOD_S)

    # --- timers ---

    def _publish_diagnostics(self) -> None:
        if self._diagnostics is None:
            return
        if self._broadcaster is not None:
            self.health.note("TF waits for", self._broadcaster.waiting_for or None)
        diagnosis = self.health.diagnose(
            self._active, self._paused, self._image_publishers, self._image_topic
        )
        self._diagnostics.publish(
            convert.diagnostics_msg(
                self.get_clock().now().nanoseconds,
                f"{self.get_name()}: localization",
                self._scene_name,
                diagnosis.level,
                diagnosis.message,
                diagnosis.values,
            )
        )

    def _publish_display(self) -> None:
        """What only people look at: made while somebody does, and never in the way of poses."""
        shown = self._shown
        if shown is None or not self._active:
            return
        if self._path_out.get_subscription_count() and self._path:
            path = list(self._path)
            stamp = convert.stamp_ns(path[-1].header.stamp)
            self._path_out.publish(convert.path_msg(path, stamp, self._map_frame))
        if self._markers.get_subscription_count():
            self._markers.publish(
                pose_markers(shown.pose, shown.job.T_base_cam, shown.job.camera, self._map_frame)
            )
        if self._debug_image.get_subscription_count():
            frame = convert.frame_from_msg(shown.job.message, shown.job.camera)
            image = debug_image(frame, shown.output)
            self._debug_image.publish(convert.image_msg(image, frame.stamp_ns, shown.job.camera_frame))

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end the executor: log it and go on."""

        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                self.get_logger().error(
                    f"{callback.__name__} failed:\n{traceback.format_exc()}",
                    throttle_duration_sec=WARNING_PERIOD_S,
                )

        return guarded


def _camera_text(camera: Camera) -> str:
    lens = f"{camera.model} distortion" if camera.distorted else "no distortion"
    return f"{camera.width_px}x{camera.height_px}, f {camera.K[0, 0]:.1f} px, {lens}"


def _qos_text(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"


def _node_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def run_node(
    arguments: Sequence[str] | None = None, scene: Path | None = None, opener: Opener = open_scene
) -> int:
    """Run the node until it is told to stop; returns the exit code.

    Args:
        arguments: command line with ROS arguments; None takes that of the process.
        scene: overrides the parameter of that name.
        opener: makes the localizer.
    """
    profile = use_shared_memory_profile()
    try:
        rclpy.init(args=list(arguments) if arguments is not None else None)
    except Exception as error:
        sys.stderr.write(f"localizer_node: error: {' '.join(str(error).split())}\n")
        return 1
    node: LocalizerNode | None = None
    try:
        given = [Parameter("scene", value=str(scene))] if scene is not None else []
        node = LocalizerNode(opener, parameter_overrides=given)
        node.get_logger().debug(f"Fast DDS profile: {profile or 'none'}")
        if node.autostart:
            for transition in (node.trigger_configure, node.trigger_activate):
                if transition() is not TransitionCallbackReturn.SUCCESS:
                    # The transition has logged why.
                    return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except LocalizerError as error:
        sys.stderr.write(f"localizer_node: error: {error}\n")
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def run_scene(scene: Path | str, ros_arguments: Sequence[str] = ()) -> int:
    """``localizer run SCENE [ROS arguments]``; returns the exit code."""
    given = [argument for argument in ros_arguments if argument != "--ros-args"]
    return run_node([NODE_NAME, "--ros-args", *given], Path(scene).resolve())


def main() -> None:
    """Executable ``localizer_node``."""
    sys.exit(run_node(sys.argv))


if __name__ == "__main__":
    main()
