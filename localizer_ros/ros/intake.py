"""What a robot sends, made into frames and commands for the localizer's thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.robot_pose import camera_pose
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, FrameRejected
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.conversions import OdometrySample
from localizer_ros.ros.endpoints import Endpoints
from localizer_ros.ros.frame_assembler import Assembled, FrameAssembler, ImageMessage, Job
from localizer_ros.ros.odometry_buffer import OdometryBuffer
from localizer_ros.ros.online_localizer import OnlineLocalizer
from localizer_ros.ros.reporting import Reporter
from localizer_ros.ros.worker import Mailbox


def topic_of(camera: str, topic: str) -> str:
    """The topic of one of several cameras; of the only one where its name is empty."""
    return f"{camera}/{topic}" if camera else topic


class Intake:
    """Takes messages in the executor's thread; what comes of them lies in the mailbox.

    Args:
        config: which topics, and how.
        frames: puts the images of each camera together with what belongs to them; the name is empty where there is
            but one camera.
        odometry: is given every sample.
        mailbox: of the thread that owns the localizer.
        report: told of all that is not taken.
        map_frame: frame in which an initial pose has to be.
    """

    def __init__(
        self,
        config: RunConfig,
        frames: Mapping[str, FrameAssembler],
        odometry: OdometryBuffer[OdometrySample],
        mailbox: Mailbox[Job, OnlineLocalizer],
        report: Reporter,
        map_frame: str,
    ) -> None:
        self._config, self._frames, self._odometry = config, frames, odometry
        self._mailbox, self._report, self._map_frame = mailbox, report, map_frame

    def subscribe(self, endpoints: Endpoints) -> None:
        """Take messages from now on."""
        config, report = self._config, self._report
        # In this order the executor serves them when several are ready: what a frame needs comes before it.
        for name in self._frames:
            endpoints.input(
                CameraInfo,
                topic_of(name, "camera_info"),
                partial(self._on_camera_info, name),
                config.camera_info_reliability,
            )
        if config.odometry.use:
            # Every sample counts, and they come in bursts.
            endpoints.input(Odometry, "odom", self._on_odometry, depth=200)
        endpoints.input(PoseWithCovarianceStamped, "initialpose", self._on_initialpose, "reliable")
        compressed = config.image_transport == "compressed"
        topics = {}
        for name in self._frames:
            # As image_transport names it: beside the raw topic, after remapping.
            topic = endpoints.resolved(topic_of(name, "image")) + ("/compressed" if compressed else "")
            topics[name] = topic
            endpoints.input(
                CompressedImage if compressed else Image,
                topic,
                partial(self._on_image, name),
                config.image_reliability,
                matched=partial(report.image_publishers_changed, topic),
                message_lost=report.images_lost,
            )
        report.health.image_topic = ", ".join(topics.values())

    def pause(self, paused: bool) -> None:
        """Take no more images, and give up those that wait; or go on."""
        self._report.health.paused = paused
        if paused:
            for _ in range(self._clear_waiting() + self._mailbox.clear()):
                self._drop_paused()

    def clear(self) -> None:
        """Give up the images that wait."""
        self._mailbox.clear()
        self._clear_waiting()

    def retry(self) -> None:
        """A transform came: an image may have waited for it."""
        for frames in self._frames.values():
            self._pass_on(frames.retry())

    def _clear_waiting(self) -> int:
        return sum(frames.clear_waiting() for frames in self._frames.values())

    def _on_image(self, name: str, message: ImageMessage) -> None:
        stamp_ns = convert.stamp_ns(message.header.stamp)
        self._report.health.frame_received(stamp_ns, name)
        if self._report.health.paused:
            self._drop_paused()
        elif self._report.stamp_is_usable(stamp_ns):
            self._pass_on(self._frames[name].add_image(message, self._report.health.clock()))

    def _on_camera_info(self, name: str, message: CameraInfo) -> None:
        try:
            camera = self._frames[name].add_camera_info(message)
        except ConfigError as error:
            self._report.camera_refused(error)
            return
        if camera is not None:
            self._report.camera_changed(camera, name)
            self._pass_on(self._frames[name].retry())

    def _on_odometry(self, message: Odometry) -> None:
        try:
            sample = convert.odometry_from_msg(message)
            for frames in self._frames.values():
                frames.add_odometry(sample)
        except ValueError as error:
            self._report.odometry_refused(error)
        else:
            self._odometry.add(sample.stamp_ns, sample)

    def _on_initialpose(self, message: PoseWithCovarianceStamped) -> None:
        try:
            pose = convert.base_pose_from_msg(message, self._map_frame)
            # That of the robot itself where several cameras look for it.
            several = len(self._frames) > 1
            T_base_cam = SE3.identity() if several else next(iter(self._frames.values())).extrinsics()
            prior = camera_pose(pose, T_base_cam, "initialpose")
        except (ValueError, FrameRejected) as error:
            self._report.initialpose_refused(error)
            return
        self._mailbox.command(lambda localizer: localizer.set_prior(prior))
        self._report.starts_over("initialpose")

    def _pass_on(self, assembled: Assembled) -> None:
        """Hand a complete frame to the localizer's thread, where the newest wins."""
        for error in assembled.dropped:
            self._report.frame_dropped(error)
        if assembled.job is not None:
            job = assembled.job
            self._report.frame_assembled(job)
            # The oldest of several cameras' newest frames comes first: none waits for ever, and time goes on.
            if (
                self._mailbox.put(job, job.camera_name, convert.stamp_ns(job.message.header.stamp))
                is not None
            ):
                superseded = "a newer frame came before this one was processed"
                self._report.frame_dropped(FrameRejected("superseded", superseded))

    def _drop_paused(self) -> None:
        self._report.frame_dropped(FrameRejected("paused", "the node is paused"))
