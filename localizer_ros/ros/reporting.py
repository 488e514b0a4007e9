"""What the node says: log lines, and /diagnostics. Counting and judging is done in ``health``."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_policy_name_from_kind

from localizer_ros.core.robot_pose import BasePose
from localizer_ros.core.types import Camera, FrameRejected, LocalizerError, LocalizerOutput, Status
from localizer_ros.ros.conversions import diagnostics_msg
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.health import Health

WARNING_PERIOD_S = 5.0
_NUMBER = re.compile(r"-?\d[\d.]*")


class Reporter:
    """Tells the user what happens, as often as he can bear.

    Args:
        node: that speaks.
        health: told of everything that is counted.
        scene_name: hardware id of the diagnostics.
    """

    def __init__(self, node: Node, health: Health, scene_name: str) -> None:
        self._node, self._log, self._scene_name = node, node.get_logger(), scene_name
        self.health = health
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._camera_problem = ""
        self._last_ns: int | None = None
        self._told = ""

    def destroy(self) -> None:
        """Say no more."""
        self._node.destroy_publisher(self._publisher)

    def publish_diagnostics(self) -> None:
        """One message on /diagnostics."""
        diagnosis = self.health.diagnose()
        self._told = _kind(diagnosis.level, diagnosis.message)
        self._publisher.publish(
            diagnostics_msg(
                self._node.get_clock().now().nanoseconds,
                f"{self._node.get_fully_qualified_name().lstrip('/')}: localization",
                self._scene_name,
                diagnosis.level,
                diagnosis.message,
                diagnosis.values,
            )
        )

    def watch(self) -> None:
        """Publish the diagnostics where they have changed since they were last published."""
        if _kind(*self.health.judge()) != self._told:
            self.publish_diagnostics()

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback, with its exceptions logged: one of them would end the executor."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                self._log.error(
                    f"{getattr(callback, '__name__', 'callback')} failed:\n{traceback.format_exc()}",
                    throttle_duration_sec=WARNING_PERIOD_S,
                )

        return call

    # --- frames ---

    def frame_dropped(self, error: FrameRejected) -> None:
        """A frame gets no answer."""
        self.health.frame_dropped(error.kind, str(error))
        if error.kind not in ("superseded", "paused"):
            self._log.warning(
                f"frame dropped ({error.kind}): {error}", throttle_duration_sec=WARNING_PERIOD_S
            )

    def frame_failed(self, error: Exception) -> None:
        """A frame gets no answer because of an exception; the next one may be fine."""
        if isinstance(error, FrameRejected):
            self.frame_dropped(error)
        elif isinstance(error, LocalizerError):
            self.frame_dropped(FrameRejected("failed", str(error)))
        else:
            self.command_failed(error)
            self.frame_dropped(FrameRejected("failed", f"{type(error).__name__}: {error}"))

    def command_failed(self, error: Exception) -> None:
        """Something unexpected happened in the worker's thread."""
        text = "".join(traceback.format_exception(error))
        self._log.error(f"unexpected error:\n{text}", throttle_duration_sec=WARNING_PERIOD_S)

    def frame_assembled(self, job: Job) -> None:
        """A frame is complete."""
        if job.T_odometry_cam is not None:
            self.health.note("odometry", "used")
        elif job.odometry_problem:
            self.health.note("odometry", f"not used: {job.odometry_problem}")

    def frame_answered(
        self, job: Job, output: LocalizerOutput, pose: BasePose | None, waited_s: float
    ) -> None:
        """The answer to a frame is out.

        Args:
            job: the frame.
            output: the localizer's answer.
            pose: that was published, if any.
            waited_s: time in the mailbox.
        """
        if output.reset and self._last_ns is not None and output.stamp_ns < self._last_ns:
            back_s = (self._last_ns - output.stamp_ns) * 1e-9
            self._log.warning(f"time jumped back by {back_s:.1f} s: started over")
            self.health.jumps_back += 1
        self._last_ns = output.stamp_ns
        if pose is not None:
            age_s = (self._node.get_clock().now().nanoseconds - pose.stamp_ns) * 1e-9
            self.health.pose_published(self.health.clock() - job.arrived_s, age_s)
            if not job.base_frame:
                self._log.warning(
                    "no TF: neither the image nor camera_info has a frame_id",
                    throttle_duration_sec=WARNING_PERIOD_S,
                )
        if self.health.frame_processed(output, waited_s):
            line = f"{output.status.value}{': ' + output.reason if output.reason else ''}"
            if output.status is Status.TRACKING:
                self._log.info(line)
            else:
                self._log.warning(line)
            self.publish_diagnostics()

    def forget_time(self) -> None:
        """The next frame may have any stamp."""
        self._last_ns = None

    # --- other input ---

    def camera_changed(self, camera: Camera) -> None:
        """A calibration came that differs from the one before."""
        lens = f"{camera.model} distortion" if camera.distorted else "no distortion"
        text = f"{camera.width_px}x{camera.height_px}, f {camera.K[0, 0]:.1f} px, {lens}"
        if "camera" in self.health.notes:
            self._log.warning(f"camera_info changed: now {text}")
        self._camera_problem = ""
        self.health.note("camera", text)

    def camera_refused(self, error: LocalizerError) -> None:
        """A calibration is not usable; said once."""
        if str(error) != self._camera_problem:
            self._log.error(f"camera_info is ignored: {error}")
        self._camera_problem = str(error)
        self.health.note("camera", self._camera_problem)

    def odometry_refused(self, error: ValueError) -> None:
        """A sample of odometry is not usable."""
        self._log.warning(f"odom is ignored: {error}", throttle_duration_sec=WARNING_PERIOD_S)
        self.health.note("odometry", f"not used: {error}")

    def initialpose_refused(self, error: Exception) -> None:
        """An initial pose is not usable."""
        self._log.warning(f"initialpose is ignored: {error}")

    def starts_over(self, why: str) -> None:
        """Somebody asked the localizer to start over."""
        self._log.info(f"{why}: starting over with the next frame")

    # --- middleware ---

    def image_publishers_changed(self, event: Any) -> None:
        """A publisher of the images came or went."""
        self.health.image_publishers = event.current_count

    def images_lost(self, event: Any) -> None:
        """The middleware says that images never arrived."""
        self.health.frames_lost(event.total_count_change)
        self._log.warning(
            f"{event.total_count} image(s) lost on the way so far: publisher and node both need the Fast DDS "
            "profile config/fastdds.xml",
            throttle_duration_sec=WARNING_PERIOD_S,
        )

    def input_qos_differs(self, topic: str, ours: QoSProfile, event: Any) -> None:
        """A publisher of ``topic`` offers less than this node's subscription asks for."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        theirs = ", ".join(f"{node_name(info)} offers {_qos_text(info.qos_profile)}" for info in publishers)
        resolved = self._node.resolve_topic_name(topic)
        settings = {
            self.health.image_topic: "image_reliability, or ",
            "camera_info": "camera_info_reliability, or ",
        }
        self._log.warning(
            f"QoS of {resolved} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no "
            f"messages will come: {theirs or 'the publisher'}; this node asks for {_qos_text(ours)}. Set "
            f"{settings.get(topic, '')}qos_overrides.{resolved}.subscription.reliability"
        )
        self.health.note(f"QoS {resolved}", f"does not fit: {theirs}; asked for {_qos_text(ours)}")

    def output_qos_differs(self, name: str, ours: QoSProfile, event: Any) -> None:
        """A subscriber of the topic ``~/name`` asks for more than this node offers."""
        topic = self._node.resolve_topic_name(f"~/{name}")
        theirs = ", ".join(
            f"{node_name(info)} asks for {_qos_text(info.qos_profile)}"
            for info in self._node.get_subscriptions_info_by_topic(topic)
        )
        self._log.warning(
            f"QoS of {topic} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no messages "
            f"will be sent: {theirs or 'the subscriber'}; this node offers {_qos_text(ours)}"
        )


def _kind(level: str, message: str) -> str:
    """What stays the same while only numbers change; all that is well is the same."""
    return level if level == "OK" else f"{level} {_NUMBER.sub('#', message)}"


def _qos_text(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"


def node_name(info: Any) -> str:
    """Full name of the node at an endpoint of a topic."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
