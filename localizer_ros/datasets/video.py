"""A video file: frames and the times that its container gives them, no poses.

The camera is that of a ``camera.yaml``, or of a YAML file of the video's name, beside the video; else it is not known.
As with images, a rotation that a phone notes in the file is not applied: intrinsics belong to the grid of the sensor.
Reading in order decodes the video once; a step back begins anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from localizer_ros.core.files import is_there
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, SourceError, UInt8
from localizer_ros.datasets.calibration import read_camera_yaml
from localizer_ros.datasets.folder import UNKNOWN_CAMERA, guessed_camera
from localizer_ros.datasets.invented_times import USUAL_PERIOD_NS, invented_ns
from localizer_ros.datasets.source import FrameRecord, Stamps, check_order, split_error

_TELL_EVERY = 30
# Read by OpenCV when it first opens a video.
QUIET = "OPENCV_FFMPEG_LOGLEVEL", "-8"


class VideoSource:
    """A video; a ``FrameSource``.

    Args:
        path: the file.
        progress: told how far its times are read: a long video takes minutes.

    Raises:
        SourceError: not a video that OpenCV reads, or one without frames.
    """

    def __init__(self, path: Path, progress: Progress = no_progress) -> None:
        self.path, self.format, self.ground_truth = path, "video", "none"
        self.odometry: Trajectory | None = None
        self.T_base_cam: SE3 | None = None
        self.splits: tuple[str, ...] = ()
        self.stamps: Stamps = "recorded"
        self._video: cv2.VideoCapture | None = None
        self._next = 0
        self.problems: list[str] = []
        stamps_ns, size_px = self._scan(progress)
        self.records = [
            FrameRecord(f"{index:06d}", path.stem, stamp_ns, None) for index, stamp_ns in enumerate(stamps_ns)
        ]
        check_order(path, self.records)
        self.camera_problem: str | None = None
        self.camera = self._find_camera(size_px)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        record = self.records[index]
        return Frame(record.stamp_ns, self._pixels(int(record.name)), self.camera, record.name)

    def split(self, name: str) -> VideoSource:
        """See ``FrameSource.split``; a video has no parts."""
        if name != "all":
            raise split_error(self.path, name, self.splits)
        return self

    def __getstate__(self) -> dict[str, object]:
        # An open decoder stays in its process.
        return {**self.__dict__, "_video": None, "_next": 0}

    def _scan(self, progress: Progress) -> tuple[list[int], tuple[int, int]]:
        """Stamps of all frames, and their size. Where the container's times do not increase, its rate counts."""
        video = _open(self.path)
        fps = float(video.get(cv2.CAP_PROP_FPS))
        announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        width, height = (int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        times_ms = []
        for ms in _times_ms(video):
            times_ms.append(ms)
            if len(times_ms) % _TELL_EVERY == 0:
                progress("times of the video", len(times_ms), max(announced, len(times_ms)))
        video.release()
        if not times_ms or width <= 0 or height <= 0:
            raise SourceError(f"{self.path}: the video has no frames that can be read")
        if len(times_ms) < announced:
            self.problems.append(f"{len(times_ms)} of {announced} frames of the video can be read")
        if np.all(np.diff(times_ms) > 0.0):
            return [round(1e6 * ms) for ms in times_ms], (width, height)
        if not (np.isfinite(fps) and fps > 0.0):
            self.stamps, fps = "invented", 1e9 / USUAL_PERIOD_NS
        return [invented_ns(i, period_ns=1e9 / fps) for i in range(len(times_ms))], (width, height)

    def _find_camera(self, size_px: tuple[int, int]) -> Camera:
        for file in (self.path.with_suffix(".yaml"), self.path.with_name("camera.yaml")):
            if is_there(file):
                camera = read_camera_yaml(file)
                if (camera.width_px, camera.height_px) != size_px:
                    raise SourceError(
                        f"{file}: is of {camera.width_px}x{camera.height_px} images, the video has "
                        f"{size_px[0]}x{size_px[1]}"
                    )
                return camera
        self.camera_problem = UNKNOWN_CAMERA.format(where=f"{self.path.with_name('camera.yaml')}")
        return guessed_camera(*size_px)

    def _pixels(self, number: int) -> UInt8:
        if self._video is None or number < self._next:
            if self._video is not None:
                self._video.release()
            self._video, self._next = _open(self.path), 0
        while self._next < number and self._video.grab():
            self._next += 1
        done, image = self._video.read()
        self._next += 1
        if not done:
            raise SourceError(f"{self.path}: frame {number} cannot be decoded")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def open_recording(path: Path, progress: Progress = no_progress) -> VideoSource:
    """Open a video. Raises SourceError."""
    return VideoSource(path, progress)


def _open(path: Path) -> cv2.VideoCapture:
    # What FFmpeg and OpenCV say of a damaged file would stand between our own words.
    os.environ.setdefault(*QUIET)
    if not path.is_file():
        raise SourceError(f"{path}: cannot be read (not a regular file)")
    usual = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(usual)
    if not video.isOpened():
        raise SourceError(
            f"{path}: is no video that OpenCV can read (cut off before its index, or another codec?)"
        )
    video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return video


def _times_ms(video: cv2.VideoCapture) -> Iterator[float]:
    """The time of every frame, from the first."""
    first: float | None = None
    while video.grab():
        ms = float(video.get(cv2.CAP_PROP_POS_MSEC))
        first = ms if first is None else first
        yield ms - first
