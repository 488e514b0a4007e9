"""What the node says: log lines, and /diagnostics. Counting and judging is done in ``health``."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

from localizer_ros.core.robot_pose import BasePose
from localizer_ros.core.types import Camera, FrameRejected, LocalizerError, LocalizerOutput, Status
from localizer_ros.localization.external_odometry import ODOMETRY
from localizer_ros.ros.conversions import diagnostic_status, diagnostics_msg
from localizer_ros.ros.frame_assembler import Job
from localizer_ros.ros.health import Health
from localizer_ros.ros.qos_report import QosReport
from localizer_ros.ros.stamps import stamp_problem
from localizer_ros.ros.streams import OTHER_CAMERA

# The last status is there for whoever comes later.
STATUS_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
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
        self.qos = QosReport(node, health)
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status_publisher = node.create_publisher(DiagnosticStatus, "~/status", STATUS_QOS)
        self._odometry_used = False
        self._camera_problem = ""
        self._last_ns: int | None = None
        self._told = ""
        self._publishers: dict[str, int] = {}

    def destroy(self) -> None:
        """Say no more."""
        self._node.destroy_publisher(self._publisher)
        self._node.destroy_publisher(self._status_publisher)

    def publish_diagnostics(self) -> None:
        """One message on /diagnostics, and one on ~/status."""
        self.qos.refresh()
        diagnosis = self.health.diagnose()
        self._told = _kind(diagnosis.level, diagnosis.message, diagnosis.summary["status"])
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: localization"
        about = (name, self._scene_name, diagnosis.level, diagnosis.message)
        status = diagnostic_status(*about, diagnosis.values)
        self._publisher.publish(diagnostics_msg(self._node.get_clock().now().nanoseconds, status))
        self._status_publisher.publish(diagnostic_status(*about, diagnosis.summary))

    def watch(self) -> None:
        """Publish the diagnostics where they have changed since they were last published."""
        verdict = self.health.judge()
        if _kind(verdict.level, verdict.message, verdict.status.value) != self._told:
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

    def stamp_is_usable(self, stamp_ns: int) -> bool:
        """Whether an image of this stamp may be taken; tells what is wrong with it, and counts it where it may not."""
        try:
            problem = stamp_problem(stamp_ns, self._node.get_clock().now().nanoseconds)
        except FrameRejected as error:
            self.frame_dropped(error)
            return False
        if problem:
            self._log.warning(problem, throttle_duration_sec=WARNING_PERIOD_S)
            self.health.remark("stamps", problem)
        return True

    def frame_dropped(self, error: FrameRejected) -> None:
        """A frame gets no answer."""
        self.health.frame_dropped(error.kind, str(error))
        if error.kind not in ("superseded", "paused", OTHER_CAMERA):
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
        if job.odometry_problem:
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
            text = f"time jumped back by {back_s:.1f} s: started over"
            self._log.warning(text)
            self.health.remark("time", text)
            self.health.jumps_back += 1
            # The samples before the jump are gone with it.
            self._odometry_used = False
        self._last_ns = output.stamp_ns
        self._tell_odometry(output)
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
        else:
            self.watch()

    def _tell_odometry(self, output: LocalizerOutput) -> None:
        """Whether odometry has measured the way to this frame."""
        if any(motion.source == ODOMETRY for motion in output.motions):
            self._odometry_used = True
            self.health.note("odometry", "used")
        elif output.relative is not None and self._odometry_used:
            text = "odom is not used any more: it has ended, or its samples come too late"
            self.health.note("odometry", text)
            self.health.remark("odometry", text)

    def forget_time(self) -> None:
        """The next frame may have any stamp."""
        self._last_ns = None

    # --- other input ---

    def camera_changed(self, camera: Camera, name: str = "") -> None:
        """A calibration came that differs from the one before; the name is empty where there is but one camera."""
        key = f"camera {name}".rstrip()
        lens = f"{camera.model} distortion" if camera.distorted else "no distortion"
        text = f"{camera.width_px}x{camera.height_px}, f {camera.K[0, 0]:.1f} px, {lens}"
        if key in self.health.notes:
            changed = f"{f'{name}/' if name else ''}camera_info changed: now {text}"
            self._log.warning(changed, throttle_duration_sec=WARNING_PERIOD_S)
            self.health.remark(key, changed)
        self._camera_problem = ""
        self.health.note(key, text)

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
        self.health.remark("odometry", f"odom is ignored: {error}")

    def initialpose_refused(self, error: Exception) -> None:
        """An initial pose is not usable."""
        self._log.warning(f"initialpose is ignored: {error}")
        self.health.remark("initialpose", f"initialpose is ignored: {error}")

    def static_transform_changed(self, text: str) -> None:
        """What should not move is elsewhere than it was said to be before."""
        self._log.warning(text)
        self.health.remark("static transform", text)
        self.health.note("static transform", text)

    def starts_over(self, why: str) -> None:
        """Somebody asked the localizer to start over."""
        self._log.info(f"{why}: starting over with the next frame")

    # --- middleware ---

    def image_publishers_changed(self, topic: str, event: Any) -> None:
        """A publisher of a topic of images came or went."""
        self._publishers[topic] = event.current_count
        self.health.image_publishers = sum(self._publishers.values())

    def images_lost(self, event: Any) -> None:
        """The middleware says that images never arrived."""
        self.health.frames_lost(event.total_count_change)
        self._log.warning(
            f"{event.total_count} image(s) lost on the way so far: publisher and node both need the Fast DDS "
            "profile config/fastdds.xml",
            throttle_duration_sec=WARNING_PERIOD_S,
        )


def _kind(level: str, message: str, status: str) -> str:
    """What stays the same while only numbers change; all that is well is the same."""
    return level if level == "OK" else f"{level} {status} {_NUMBER.sub('#', message)}"
