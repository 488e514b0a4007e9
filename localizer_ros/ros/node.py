"""The ROS 2 node: it assembles a frame, calls the localizer, and hands the answer on. Nothing in it computes.

The executor's thread receives and answers services; the worker's thread owns the localizer and publishes poses. A frame
that cannot be used is a counted drop with a reason, never an exception or a made-up pose.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from localizer_ros.core.config.live import is_live
from localizer_ros.core.types import ConfigError, LocalizerOutput
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.display import Display
from localizer_ros.ros.endpoints import Endpoints
from localizer_ros.ros.frame_assembler import FrameAssembler, Job
from localizer_ros.ros.health import Health
from localizer_ros.ros.heartbeat import MISSING, Heartbeat
from localizer_ros.ros.intake import Intake, topic_of
from localizer_ros.ros.lifecycle import ManagedNode
from localizer_ros.ros.machine import THIS_MACHINE, Machine
from localizer_ros.ros.odometry_buffer import OdometryBuffer
from localizer_ros.ros.online_localizer import OnlineLocalizer, Opener, open_scene
from localizer_ros.ros.outputs import Outputs
from localizer_ros.ros.parameters import check_change, declare_parameters, read_parameters
from localizer_ros.ros.reporting import Reporter
from localizer_ros.ros.tf import MapBroadcaster
from localizer_ros.ros.transform_listener import TransformListener
from localizer_ros.ros.worker import Worker

NODE_NAME = "localizer"
# Is left an answer and the image that it is of.
Show = Callable[[Job, LocalizerOutput], None]
# The image waits this long for an odometry sample that is due; both leave the robot at about the same time.
ODOMETRY_WAIT_S = 0.02
DISPLAY_PERIOD_S = 0.2
DIAGNOSTICS_PERIOD_S = 1.0
# What goes wrong is told within half a second, and found out within a part of that.
WATCH_PERIOD_S = 0.1
STOP_TIMEOUT_S = 10.0


class LocalizerNode(ManagedNode):
    """The lifecycle node ``localizer``.

    Args:
        opener: makes the localizer, in the worker's thread.
        machine: time and threads.
        show: is left every answer, in the worker's thread, for those who look at it.
        arguments: what ``rclpy.node.Node`` takes beside the name.

    Raises:
        ConfigError: an unknown parameter, or a value out of range.
    """

    def __init__(
        self,
        opener: Opener = open_scene,
        machine: Machine = THIS_MACHINE,
        show: Show | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(NODE_NAME, **arguments)
        declare_parameters(self, arguments.get("cli_args") or ())
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)
        self._opener, self._machine, self._show = opener, machine, show
        self.health = Health(machine.clock)
        self._worker: Worker[Job, OnlineLocalizer] | None = None
        # What is undone at the end of the states inactive and active.
        self._undo_configure, self._undo_activate = contextlib.ExitStack(), contextlib.ExitStack()

    @property
    def autostart(self) -> bool:
        """Whether the process takes the node to active by itself."""
        return read_parameters(self).autostart

    # --- the steps of the lifecycle ---

    def prepare(self, prepared: Callable[[], None]) -> None:
        """Begin to open the scene."""
        self._create_worker().begin(prepared)

    def configure(self) -> None:
        """Wait for the scene, create publishers and services."""
        worker = self._worker if self._worker is not None else self._create_worker()
        worker.start()
        scene, self.health.opening = self.health.opening, ""
        took_s = self.health.clock() - self._begun_s
        self.get_logger().info(f"scene {scene} opened in {took_s:.1f} s; poses in frame {self._map_frame!r}")
        self._create_parts()

    def activate(self) -> None:
        """Subscribe."""
        endpoints = Endpoints(self, self._report, self._undo_activate)
        self._intake.subscribe(endpoints)
        self._heartbeat.begin(endpoints)
        self.health.active = True
        self.get_logger().info(
            f"active: waiting for {self.health.image_topic} and the calibration beside it; "
            f"images are taken as {'rectified' if self._config.image_rectified else 'not rectified'}"
        )
        self._publish_diagnostics()

    def deactivate(self) -> None:
        """Unsubscribe; the scene stays open."""
        self.health.active = False
        self._intake.clear()
        # The frame in work still publishes; only then may the publishers go silent.
        idle = threading.Event()
        self._mailbox.command(lambda localizer: localizer.reset())
        self._mailbox.command(lambda localizer: idle.set())
        idle.wait(STOP_TIMEOUT_S)
        self._undo_activate.close()
        self._heartbeat.end()
        self._forget_motion()
        self._publish_diagnostics()

    def teardown(self) -> None:
        """Close everything; parameters may change again."""
        # First: it publishes.
        if self._worker is not None and not self._worker.stop(STOP_TIMEOUT_S):
            self.get_logger().error("the localizer does not end; its thread is left behind")
        self._worker = None
        self._undo_activate.close()
        self._undo_configure.close()

    def _create_worker(self) -> Worker[Job, OnlineLocalizer]:
        """Read the parameters; the thread that will open the scene."""
        self._config = config = read_parameters(self)
        if not config.scene:
            raise ConfigError("parameter scene: expected the folder of a scene, got nothing")
        path = Path(config.scene).expanduser()
        self.health = Health(self._machine.clock, config.search.latency_s)
        self._report = Reporter(self, self.health, path.name)
        self._undo_configure.callback(self._report.destroy)
        self._begun_s, self.health.opening = self.health.clock(), str(path)
        endpoints = Endpoints(self, self._report, self._undo_configure)
        endpoints.timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        endpoints.service(Trigger, "health", self._on_health)

        def create() -> OnlineLocalizer:
            opened = self._opener(path, config)
            try:
                self._map_frame = config.frame_of_map(opened.map_frame)
            except ConfigError:
                opened.localizer.close()
                raise
            return opened.localizer

        self._worker = self._machine.worker(
            create, self._handle, lambda localizer: localizer.close(), self._report.command_failed
        )
        self._mailbox = self._worker.mailbox
        return self._worker

    def _create_parts(self) -> None:
        config, endpoints = self._config, Endpoints(self, self._report, self._undo_configure)
        self._odometry: OdometryBuffer[convert.OdometrySample] = OdometryBuffer(
            wait=self._machine.wait, clock=self._machine.clock
        )
        # From now on: static transforms are known when the first image comes.
        self._transforms = TransformListener(
            self,
            self._map_frame,
            self._report.guarded(self._on_transforms),
            self._report.static_transform_changed,
            self._machine.clock,
        )
        self._undo_configure.callback(self._transforms.unsubscribe)
        frames = {
            name: FrameAssembler(
                config.base_frame,
                config.image_rectified,
                endpoints.resolved(topic_of(name, "camera_info")),
                self._transforms.lookup,
                config.camera_convention,
                name,
            )
            for name in config.camera_names
        }
        self._intake = Intake(config, frames, self._odometry, self._mailbox, self._report, self._map_frame)
        broadcaster = MapBroadcaster(self, self._transforms, self._map_frame, config, self._machine.clock)
        self._undo_configure.callback(broadcaster.destroy)
        self._outputs = Outputs(endpoints.output, self._map_frame, broadcaster)
        self._display = Display(
            endpoints.output, self._map_frame, config.path_length, self._report.command_failed
        )
        self._undo_configure.callback(self._display.close)
        self._heartbeat = Heartbeat(self)
        self._undo_configure.callback(self._heartbeat.destroy)
        if not self._heartbeat.possible and not config.autostart:
            self.get_logger().info(MISSING)
        endpoints.service(Trigger, "relocalize", self._on_relocalize)
        endpoints.service(Trigger, "reset", self._on_reset)
        endpoints.service(SetBool, "pause", self._on_pause)
        endpoints.timer(WATCH_PERIOD_S, self._watch)
        endpoints.timer(DISPLAY_PERIOD_S, self._display.publish)
        self._transforms.subscribe()

    # --- executor's thread ---

    def _on_transforms(self) -> None:
        self._intake.retry()
        self._outputs.retry_transform()

    def _on_health(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.health.opening:
            self._note_transforms()
        verdict = self.health.judge()
        response.success, response.message = verdict.usable, verdict.answer
        return response

    def _on_relocalize(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._start_over(response, "relocalize", lambda localizer: localizer.relocalize())

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget_motion()
        return self._start_over(response, "reset", lambda localizer: localizer.reset())

    def _start_over(
        self, response: Trigger.Response, name: str, command: Callable[[OnlineLocalizer], None]
    ) -> Trigger.Response:
        self._outputs.forget()
        self._mailbox.command(command)
        self._report.starts_over(name)
        response.success, response.message = True, "starting over with the next frame"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._intake.pause(bool(request.data))
        response.success, response.message = True, "paused" if self.health.paused else "running"
        self._publish_diagnostics()
        return response

    def _on_set_parameters(self, changes: list[Parameter]) -> Any:
        return check_change(self, changes, locked=self._worker is not None)

    def _on_parameters_set(self, changes: list[Parameter]) -> None:
        """Take what has changed, where that may change while the node runs."""
        # While the scene is opened there is nothing yet to tell: configuring reads them when it goes on.
        opened = self._worker is not None and not self.health.opening
        if not opened or not any(is_live(change.name) for change in changes):
            return
        self._config = config = read_parameters(self)
        self._mailbox.command(lambda localizer: localizer.reconfigure(config))
        self._display.resize(config.path_length)
        self._outputs.reconfigure(config)

    def _watch(self) -> None:
        self._note_transforms()
        self._report.watch()

    def _publish_diagnostics(self) -> None:
        if not self.health.opening:
            self._note_transforms()
        self._report.publish_diagnostics()

    def _note_transforms(self) -> None:
        for key, value in self._outputs.transform_details().items():
            self.health.note(key, value or None)
        self.health.transforms(*self._outputs.transform_silence())

    def _forget_motion(self) -> None:
        """Nothing that moves is known any more."""
        self._display.forget()
        self._outputs.forget()
        self._odometry.reset()
        self._transforms.clear_moving()
        self._report.forget_time()

    # --- worker's thread ---

    def _handle(self, localizer: OnlineLocalizer, job: Job, waited_s: float) -> None:
        """Answer one frame."""
        try:
            frame = convert.frame_from_msg(job.message, job.camera, job.T_odometry_cam, job.mount)
            for stamp_ns, sample in self._odometry.release(frame.stamp_ns, ODOMETRY_WAIT_S):
                localizer.add_odometry(stamp_ns, sample.T_odom_base, sample.covariance)
            output = localizer.process(frame)
            pose = self._outputs.publish(job, output)
        except Exception as error:
            # The next frame may be fine; the node of a moving robot does not die of one.
            self._report.frame_failed(error)
            return
        self._display.add(job, output, pose)
        if self._show is not None:
            self._show(job, output)
        self._report.frame_answered(job, output, pose, waited_s)
