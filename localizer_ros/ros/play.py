"""Publishes a recording as a robot would: images, camera_info, odometry, TF and /clock, with its own stamps.

Topics are ``image`` (or ``image/compressed``), ``camera_info``, ``odom``, ``/tf``, ``/tf_static`` and ``/clock``,
whatever format the recording has; remap them with ROS arguments. Frames are called as in the bag; ``camera``,
``base_link`` and ``odom`` where the recording has no names for them. Poses of the camera are never published: they are
what the localizer has to find.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import rclpy
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, ConfigError, SourceError
from localizer_ros.datasets.source import FrameSource, frame_names, require_camera
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.transform_listener import TF_QOS, TF_STATIC_QOS

_CLOCK_PERIOD_S = 0.01
# A longer pause between two messages is cut short.
_LONGEST_PAUSE_S = 3.0
_READ_AHEAD = 8
# Both ends learn of each other within some milliseconds, but not in the same instant: a subscriber that the
# publisher knows may not know the publisher yet, and would miss the first message.
_SETTLE_S = 0.3


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """How a recording is played.

    Attributes:
        rate: 2.0 plays twice as fast.
        loop: start again at the end, with the same stamps: time jumps back.
        image_format: ``raw``, ``jpeg`` or ``png``.
        wait_for_subscribers: start when this many subscribe to the images; 0 starts at once.
        wait_timeout_s: for them.
        limit: play at most this many frames a round; None plays all.
        ros_arguments: as after ``--ros-args``, e.g. ``["-r", "image:=/camera/image_raw"]``.
    """

    rate: float = 1.0
    loop: bool = False
    image_format: str = "raw"
    wait_for_subscribers: int = 0
    wait_timeout_s: float = 60.0
    limit: int | None = None
    ros_arguments: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < float("inf"):
            raise ConfigError(f"rate: expected a positive number, got {self.rate}")
        if self.image_format not in ("raw", "jpeg", "png"):
            raise ConfigError(f"image format: expected raw, jpeg or png, got {self.image_format!r}")


@dataclass(frozen=True, slots=True)
class PlayReport:
    """What was played.

    Attributes:
        frames: published.
        wall_s: from the first to the last message.
        latest_s: the most that a message came after its time: how far this machine fell behind.
    """

    frames: int
    wall_s: float
    latest_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One frame or one odometry pose, ready to be published."""

    stamp_ns: int
    image: Image | CompressedImage | None = None
    info: CameraInfo | None = None
    T_odom_base: SE3 | None = None
    covariance: Array | None = None


def play(
    source: FrameSource,
    options: PlayOptions = PlayOptions(),
    progress: Progress = no_progress,
    on_image: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> PlayReport:
    """Publish a recording and return at its end.

    Args:
        source: the recording.
        options: see there.
        progress: told of every frame.
        on_image: called with the stamp just before an image is published.
        stop: ends the playing early when set.

    Raises:
        SourceError: a frame cannot be read, or the camera is not known.
        ConfigError: malformed ROS arguments, or too few subscribers in time.
    """
    require_camera(source)
    stop = stop or threading.Event()
    use_shared_memory_profile()
    context = rclpy.Context()
    given = [argument for argument in options.ros_arguments if argument != "--ros-args"]
    try:
        rclpy.init(args=["play", "--ros-args", *given], context=context)
    except RuntimeError as error:
        raise ConfigError(f"ROS arguments: {' '.join(str(error).split())}") from error
    try:
        player = _Player(Node("player", context=context), source, options)
        player.publish_static()
        player.wait_for_subscribers(stop)
        return player.run(progress, on_image, stop)
    finally:
        rclpy.try_shutdown(context=context)


class _Player:
    def __init__(self, node: Node, source: FrameSource, options: PlayOptions) -> None:
        self._source, self._options, self._frames = source, options, frame_names(source)
        # Reliable fits every subscriber; a best-effort one still gets best effort.
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
        if options.image_format == "raw":
            self._image = node.create_publisher(Image, "image", qos)
        else:
            topic = f"{node.resolve_topic_name('image')}/compressed"
            self._image = node.create_publisher(CompressedImage, topic, qos)
        self._info = node.create_publisher(CameraInfo, "camera_info", qos)
        self._clock = node.create_publisher(ClockMsg, "/clock", QoSProfile(depth=1))
        self._static = node.create_publisher(TFMessage, "/tf_static", TF_STATIC_QOS)
        self._odometry = self._tf = None
        if source.odometry is not None:
            self._odometry = node.create_publisher(Odometry, "odom", QoSProfile(depth=100))
            self._tf = node.create_publisher(TFMessage, "/tf", TF_QOS)
        count = len(source.records)
        self._total = count if options.limit is None else min(options.limit, count)
        # The publishers live as long as their node.
        self._node = node

    def run(
        self, progress: Progress, on_image: Callable[[int], None] | None, stop: threading.Event
    ) -> PlayReport:
        frames, latest_s, began_s = 0, 0.0, time.monotonic()
        while not stop.is_set():
            start_s, first_ns = time.monotonic(), self._begin_ns()
            last_ns = first_ns
            for event in self._events(stop):
                # Drives of one recording may lie hours apart: nobody wants to wait for the next.
                pause_s = (event.stamp_ns - last_ns) * 1e-9 / self._options.rate
                start_s -= max(0.0, pause_s - _LONGEST_PAUSE_S)
                last_ns = event.stamp_ns
                due_s = start_s + (event.stamp_ns - first_ns) * 1e-9 / self._options.rate
                self._sleep_until(due_s, event.stamp_ns, stop)
                if stop.is_set():
                    break
                latest_s = max(latest_s, time.monotonic() - due_s)
                self._publish(event, on_image)
                if event.image is not None:
                    frames += 1
                    progress("play", (frames - 1) % self._total + 1, self._total)
            if not self._options.loop:
                break
        self._image.wait_for_all_acked()
        return PlayReport(frames, time.monotonic() - began_s, latest_s)

    def _begin_ns(self) -> int:
        return self._source.records[0].stamp_ns

    def publish_static(self) -> None:
        if self._source.T_base_cam is not None:
            frames = self._frames
            transform = convert.transform_msg(
                self._source.T_base_cam, self._begin_ns(), frames.base, frames.camera
            )
            self._static.publish(TFMessage(transforms=[transform]))

    def wait_for_subscribers(self, stop: threading.Event) -> None:
        wanted, timeout_s = self._options.wait_for_subscribers, self._options.wait_timeout_s
        if wanted <= 0:
            return
        deadline_s = time.monotonic() + timeout_s
        while min(p.get_subscription_count() for p in (self._image, self._info)) < wanted:
            if stop.wait(0.01):
                return
            if time.monotonic() > deadline_s:
                raise ConfigError(
                    f"{self._image.topic_name}: expected {wanted} subscriber(s) within {timeout_s:g} s, "
                    f"got {self._image.get_subscription_count()}"
                )
        stop.wait(_SETTLE_S)

    def _sleep_until(self, due_s: float, stamp_ns: int, stop: threading.Event) -> None:
        """Wait for an event's time while /clock goes on."""
        while (left_s := due_s - time.monotonic()) > 0.0 and not stop.is_set():
            self._publish_clock(stamp_ns - round(left_s * self._options.rate * 1e9))
            time.sleep(min(left_s, _CLOCK_PERIOD_S))
        self._publish_clock(stamp_ns)

    def _publish_clock(self, stamp_ns: int) -> None:
        self._clock.publish(ClockMsg(clock=convert.stamp_msg(max(0, stamp_ns))))

    def _publish(self, event: _Prepared, on_image: Callable[[int], None] | None) -> None:
        if event.T_odom_base is not None and self._odometry is not None and self._tf is not None:
            args = (event.T_odom_base, event.stamp_ns, self._frames.odom, self._frames.base)
            self._odometry.publish(convert.odometry_sample_msg(*args, event.covariance))
            self._tf.publish(TFMessage(transforms=[convert.transform_msg(*args)]))
        if event.image is not None:
            self._info.publish(event.info)
            if on_image is not None:
                on_image(event.stamp_ns)
            self._image.publish(event.image)

    def _events(self, stop: threading.Event) -> Iterator[_Prepared]:
        """Frames and odometry in order of time; odometry first where both have the same stamp."""
        odometry = self._odometry_events()
        waiting = next(odometry, None)
        for frame in self._read_ahead(stop):
            while waiting is not None and waiting.stamp_ns <= frame.stamp_ns:
                yield waiting
                waiting = next(odometry, None)
            yield frame

    def _odometry_events(self) -> Iterator[_Prepared]:
        trajectory = self._source.odometry
        if trajectory is None:
            return
        # What a robot sent just before the first image; the minutes before a split are no part of it.
        begin_ns = self._begin_ns() - 1_000_000_000
        for index, stamp_ns in enumerate(trajectory.stamps_ns.tolist()):
            if stamp_ns >= begin_ns:
                covariance = None if trajectory.covariances is None else trajectory.covariances[index]
                yield _Prepared(stamp_ns, T_odom_base=trajectory.poses[index], covariance=covariance)

    def _read_ahead(self, stop: threading.Event) -> Iterator[_Prepared]:
        """Frames, read and packed in a thread of their own: the disk and the decoder do not shake the rhythm."""
        ready: queue.Queue[_Prepared | Exception | None] = queue.Queue(_READ_AHEAD)
        left = threading.Event()

        def put(item: _Prepared | Exception | None) -> bool:
            while not (stop.is_set() or left.is_set()):
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def read() -> None:
            try:
                for index in range(self._total):
                    if not put(self._prepared(index)):
                        return
                put(None)
            except Exception as error:
                put(error)

        thread = threading.Thread(target=read, name="read_ahead", daemon=True)
        thread.start()
        try:
            while not stop.is_set():
                try:
                    item = ready.get(timeout=0.1)
                except queue.Empty:
                    continue
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            left.set()
            thread.join()

    def _prepared(self, index: int) -> _Prepared:
        try:
            frame = self._source.read(index)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{self._source.path}: frame {self._source.records[index].name}: {error}"
            ) from error
        stamp_ns, camera_frame = frame.stamp_ns, self._frames.camera
        if self._options.image_format == "raw":
            image: Image | CompressedImage = convert.image_msg(frame.image, stamp_ns, camera_frame)
        else:
            image = convert.compressed_msg(frame.image, stamp_ns, camera_frame, self._options.image_format)
        return _Prepared(stamp_ns, image, convert.info_msg(frame.camera, stamp_ns, camera_frame))
