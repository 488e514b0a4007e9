"""An image, its calibration and its extrinsics put together for the localizer, or the reason why they are not.

They come on different topics and in any order. The newest image waits for what it needs; nothing is guessed, and an
image that is given up is a counted drop with a reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from localizer_ros.core.camera_frames import optical_in
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError, TransformNotYet
from localizer_ros.core.types import Camera, ConfigError, FrameRejected, Mount
from localizer_ros.datasets.calibration import camera_from_info
from localizer_ros.ros.conversions import OdometrySample, stamp_ns

ImageMessage: TypeAlias = Image | CompressedImage
# ``T_a_b`` of two named frames at a time; raises TransformError.
Lookup = Callable[[str, str, int], SE3]
# Images that wait for the place of a camera that moves on the robot: a quarter of a second at 30 Hz.
_MOST_WAITING = 8
_SUPERSEDED = FrameRejected("superseded", "a newer frame came before this one was complete")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An image on its way to the localizer, with what was known of it when it arrived.

    Attributes:
        message: the image, raw or compressed, not decoded yet.
        camera: its calibration.
        camera_frame: its optical frame; empty where nobody names it.
        base_frame: frame whose pose is published; the camera's own where no other is asked for.
        T_base_cam: extrinsics of the camera in ``base_frame``.
        T_odometry_cam: extrinsics in the frame whose pose the odometry gives; None when there is no odometry or the
            transform is not known.
        odometry_problem: why ``T_odometry_cam`` is not known though there is odometry, else empty.
        arrived_s: when the message came, by ``time.monotonic``.
        camera_name: which of several cameras it is of; empty where there is but one.
    """

    message: ImageMessage
    camera: Camera
    camera_frame: str
    base_frame: str
    T_base_cam: SE3
    T_odometry_cam: SE3 | None
    odometry_problem: str
    arrived_s: float
    camera_name: str = ""

    @property
    def mount(self) -> Mount | None:
        """Which of several cameras it is of, and where on the robot; None where there is but one."""
        return Mount(self.camera_name, self.T_base_cam) if self.camera_name else None


@dataclass(frozen=True, slots=True)
class Assembled:
    """What one message led to.

    Attributes:
        job: an image that is complete, or None.
        dropped: why images before it were given up, one for each.
    """

    job: Job | None
    dropped: tuple[FrameRejected, ...] = ()


class FrameAssembler:
    """Completes the images of one camera.

    Args:
        base_frame: frame whose pose is asked for; empty asks for the camera's own.
        rectified: images are rectified already, see ``camera_from_info``.
        info_topic: where the calibration is expected, for messages.
        lookup: extrinsics by the names of the frames, at the stamp of an image.
        convention: of the axes of the frame that images name, a key of ``CONVENTIONS``.
        camera_name: of one of several cameras.
    """

    def __init__(
        self,
        base_frame: str,
        rectified: bool,
        info_topic: str,
        lookup: Lookup,
        convention: str = "optical",
        camera_name: str = "",
    ) -> None:
        self._camera_name = camera_name
        self._T_given_cam = optical_in(convention)
        self._base_frame, self._rectified = base_frame, rectified
        self._info_topic, self._lookup = info_topic, lookup
        self._camera_problem = ""
        self._info_frame = self._image_frame = ""
        self._odometry_frame = ""
        self._image_ns = 0
        self._waiting: deque[tuple[ImageMessage, float]] = deque()
        self.camera: Camera | None = None
        """The newest usable calibration."""

    def add_camera_info(self, message: CameraInfo) -> Camera | None:
        """The camera where it differs from the one before, else None.

        Raises:
            ConfigError: it is not usable. Images are dropped until one comes that is.
        """
        self._info_frame = message.header.frame_id.lstrip("/")
        try:
            camera = camera_from_info(message, self._rectified)
        except ConfigError as error:
            self.camera, self._camera_problem = None, str(error)
            raise
        self._camera_problem = ""
        if self.camera is not None and camera.same_as(self.camera):
            return None
        self.camera = camera
        return camera

    def add_odometry(self, sample: OdometrySample) -> None:
        """Remember whose pose the odometry gives. Raises ValueError where nothing says it."""
        frame = sample.base_frame.lstrip("/") or self._base_frame
        if not frame:
            raise ValueError("it has no child_frame_id and base_frame is not set")
        self._odometry_frame = frame

    def add_image(self, message: ImageMessage, arrived_s: float) -> Assembled:
        """The image completed; or it waits, in place of those that waited before.

        Where the camera moves on the robot, its place is known a little later than the image: such images wait beside
        each other, or with each of them the one before would be given up just before its time.
        """
        try:
            job = self._job(message, arrived_s)
        except FrameRejected as error:
            dropped: tuple[FrameRejected, ...] = ()
            if not isinstance(error.__cause__, TransformNotYet):
                # Calibration and static transforms often arrive just after the first image.
                dropped = (error,) * self.clear_waiting()
            elif len(self._waiting) == _MOST_WAITING:
                self._waiting.popleft()
                dropped = (error,)
            self._waiting.append((message, arrived_s))
            return Assembled(None, dropped)
        return Assembled(job, (_SUPERSEDED,) * self.clear_waiting())

    def retry(self) -> Assembled:
        """The newest of the images that wait that is complete by now."""
        waiting = list(self._waiting)
        for index in reversed(range(len(waiting))):
            try:
                job = self._job(*waiting[index])
            except FrameRejected:
                continue
            self._waiting = deque(waiting[index + 1 :])
            return Assembled(job, (_SUPERSEDED,) * index)
        return Assembled(None)

    def clear_waiting(self) -> int:
        """Give up the images that wait, and say how many."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def extrinsics(self) -> SE3:
        """``T_base_cam`` of the newest image, or of the calibration before there is one. Raises FrameRejected."""
        return self._T_base_cam(self._image_frame or self._info_frame, self._image_ns)

    def _job(self, message: ImageMessage, arrived_s: float) -> Job:
        if self.camera is None:
            if self._camera_problem:
                raise FrameRejected("camera_info", self._camera_problem)
            raise FrameRejected("no_camera_info", f"nothing received on {self._info_topic}")
        camera_frame = message.header.frame_id.lstrip("/") or self._info_frame
        stamp = stamp_ns(message.header.stamp)
        T_base_cam = self._T_base_cam(camera_frame, stamp)
        self._image_frame, self._image_ns = camera_frame, stamp
        T_odometry_cam, problem = None, ""
        if self._odometry_frame and camera_frame:
            try:
                T_odometry_cam = self._lookup(self._odometry_frame, camera_frame, stamp) @ self._T_given_cam
            except TransformError as error:
                problem = str(error)
        return Job(
            message,
            self.camera,
            camera_frame,
            self._base_frame or camera_frame,
            T_base_cam,
            T_odometry_cam,
            problem,
            arrived_s,
            self._camera_name,
        )

    def _T_base_cam(self, camera_frame: str, stamp: int) -> SE3:
        if not self._base_frame:
            # The pose of the camera itself is asked for: here, and only here, the two frames are one.
            return self._T_given_cam
        if not camera_frame:
            raise FrameRejected("no_frame_id", "the image has no frame_id, so base_frame cannot be used")
        try:
            return self._lookup(self._base_frame, camera_frame, stamp) @ self._T_given_cam
        except TransformError as error:
            raise FrameRejected("no_extrinsics", str(error)) from error
