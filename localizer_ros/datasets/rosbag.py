"""Bags: rosbag2 (sqlite3 or mcap, a folder or one file) and ROS 1, with raw or compressed images.

Nothing but stamps is kept in memory. Images are read where the bag has them; reading in order reads the bag once.

Which topics are used, and what the option ``topics`` may choose, is told in ``bag_topics``. A ``camera.yaml`` in the
folder goes before the camera_info topic. Poses of another frame than the camera become the camera's through
``/tf_static``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, ConfigError, Frame, FrameRejected, SourceError
from localizer_ros.datasets.bag_file import BagFile
from localizer_ros.datasets.bag_poses import BASE_FRAMES, BagPoses, frame_ids
from localizer_ros.datasets.bag_topics import COMPRESSED_IMAGE, TF, choose_topics, is_rectified
from localizer_ros.datasets.bag_writer import TF_STATIC_TOPIC
from localizer_ros.datasets.calibration import camera_from_info, read_camera_yaml
from localizer_ros.datasets.images import decode_message
from localizer_ros.datasets.source import FrameNames, FrameRecord, Stamps, check_order, split_error

# After a pause like this the motion between two frames means nothing: another sequence begins.
_SEQUENCE_GAP_NS = 5_000_000_000


class _ImageKey(NamedTuple):
    """Where an image lies in the bag; sorts by stamp."""

    stamp_ns: int
    """Of its header."""
    log_ns: int
    """When it was recorded."""
    occurrence: int
    """Which one of those recorded at that time."""


class RosbagSource:
    """A bag; a ``FrameSource``.

    Args:
        path: bag folder or file.
        topics: see ``bag_topics``.

    Attributes:
        topics: what was used, by purpose.
        frames: the bag's own names of its frames, the defaults for those it has none for.
        transforms: the tree of ``/tf_static``.
        details: what was assumed of it, plain values for ``localizer info``.
        problems: what is wrong with the recording but does not stop it from being used, one line each.

    Raises:
        SourceError: not a bag, damaged, no or several image topics, no calibration.
    """

    def __init__(self, path: Path, topics: Mapping[str, str] | None = None) -> None:
        wanted = dict(topics or {})
        self.path = path
        self.format = "rosbag"
        self.splits: Sequence[str] = ()
        self.problems: list[str] = []
        self._bag = BagFile(path)
        self.topics = choose_topics(path, self._bag.types, wanted)
        poses, images, camera_frame, info = self._scan()
        self._rectified = is_rectified(self.topics["image"])
        self.camera = self._find_camera(info)
        self.transforms = poses.transforms
        base = poses.odom_child_frame or next((f for f in BASE_FRAMES if f in self.transforms.frames), "")
        self.T_base_cam: SE3 | None = self.transforms.find_fixed(base, camera_frame) if base else None
        usual = FrameNames()
        self.frames = FrameNames(
            camera_frame or usual.camera, base or usual.base, poses.odom_frame or usual.odom
        )
        self.odometry: Trajectory | None = poses.odometry()
        self.details = self._details()
        truth = self._find_ground_truth(poses, camera_frame, wanted.get("ground_truth_frame"))
        # A bag made of a format without times notes that these are made up.
        self.stamps: Stamps = "invented" if self._bag.notes.get("stamps") == "invented" else "recorded"
        self.ground_truth = "none"
        if truth is not None:
            self.ground_truth = self._bag.notes.get("ground_truth", f"topic {self.topics['ground_truth']}")
        self._keys = self._in_order(images)
        self.records: Sequence[FrameRecord] = self._make_records(truth)
        check_order(path, self.records)
        self.read(0)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        record, key = self.records[index], self._keys[index]
        message: Any = self._bag.read(self.topics["image"], key.log_ns, key.occurrence)
        try:
            return Frame(record.stamp_ns, decode_message(message), self.camera, record.name, self.T_base_cam)
        except FrameRejected as error:
            where = f"{self.path}: {self.topics['image']} at {record.name} s"
            raise SourceError(f"{where}: {error}") from error

    def split(self, name: str) -> RosbagSource:
        """See ``FrameSource.split``; a bag has no parts."""
        if name != "all":
            raise split_error(self.path, name, self.splits)
        return self

    def _scan(self) -> tuple[BagPoses, list[_ImageKey], str, Any]:
        """Poses, images, the images' frame and a CameraInfo (or None): one pass that decodes all but images."""
        poses = BagPoses(self.path)
        images: list[_ImageKey] = []
        camera_frame, info = "", None
        purposes = {topic: purpose for purpose, topic in self.topics.items()}
        if TF_STATIC_TOPIC in self._bag.types:
            purposes[TF_STATIC_TOPIC] = "static"
        seen: dict[int, int] = {}
        for message in self._bag.scan(purposes):
            purpose = purposes[message.topic]
            if purpose == "image":
                occurrence = seen[message.log_ns] = seen.get(message.log_ns, -1) + 1
                stamp_ns = self._bag.header_stamp_ns(message.data)
                images.append(_ImageKey(stamp_ns, message.log_ns, occurrence))
                if len(images) == 1:
                    camera_frame = frame_ids(message.decode())[0]
            elif purpose == "camera_info":
                info = message.decode() if info is None else info
            elif purpose == "static":
                poses.add_static(message.topic, message.decode())
            elif purpose == "odometry":
                poses.add_odometry(message.topic, message.decode())
            elif purpose == "ground_truth":
                poses.add_ground_truth(message.decode())
        if not images:
            raise SourceError(f"{self.path}: topic {self.topics['image']} has no messages")
        return poses, images, camera_frame, info

    def _find_camera(self, info: Any) -> Camera:
        folder = self.path if self.path.is_dir() else self.path.parent
        if (folder / "camera.yaml").is_file():
            return read_camera_yaml(folder / "camera.yaml")
        if info is None:
            raise SourceError(
                f"{self.path}: no CameraInfo for {self.topics['image']}; expected a camera_info topic or a "
                f"ROS calibration {folder / 'camera.yaml'}"
            )
        try:
            return camera_from_info(info, self._rectified)
        except ConfigError as error:
            raise SourceError(f"{self.path}: {self.topics['camera_info']}: {error}") from error

    def _find_ground_truth(
        self, poses: BagPoses, camera_frame: str, truth_frame: str | None
    ) -> Trajectory | None:
        """``T_map_cam`` over time from the ground truth topic."""
        topic = self.topics.get("ground_truth")
        if topic is None:
            return None
        is_tf = self._bag.types[topic] == TF
        truth, unjoined = poses.ground_truth(topic, is_tf, camera_frame, truth_frame)
        if unjoined is not None:
            # Without the transform these are poses of something else; taking them as the camera's would be a lie.
            self.problems.append(
                f"ground truth on {topic} is of frame {unjoined!r}, which no static transform joins to the "
                f"camera {camera_frame!r}: not used"
            )
        return truth

    def _details(self) -> dict[str, Any]:
        compressed = self._bag.types[self.topics["image"]] == COMPRESSED_IMAGE
        return {
            "topics": self.topics,
            "images": "compressed" if compressed else "raw",
            "images_taken_as": "rectified" if self._rectified else "not rectified",
            "frame_ids": {"camera": self.frames.camera, "base": self.frames.base, "odom": self.frames.odom},
        }

    def _in_order(self, images: list[_ImageKey]) -> list[_ImageKey]:
        """The images in order of their own stamps, each stamp once."""
        if all(image.stamp_ns <= 0 for image in images):
            self.problems.append("images have no stamps: the times of recording are used")
            images = [image._replace(stamp_ns=image.log_ns) for image in images]
        stamps = np.array([image.stamp_ns for image in images], dtype=np.int64)
        if np.any(np.diff(stamps) < 0):
            self.problems.append(
                f"stamps go back {int(np.sum(np.diff(stamps) < 0))} times: frames are sorted"
            )
        first: dict[int, _ImageKey] = {}
        for image in sorted(images):
            first.setdefault(image.stamp_ns, image)
        if len(first) < len(images):
            self.problems.append(f"{len(images) - len(first)} frames repeat the stamp of another: left out")
        return list(first.values())

    def _make_records(self, truth: Trajectory | None) -> list[FrameRecord]:
        records: list[FrameRecord] = []
        sequence = 0
        for stamp_ns, _, _ in self._keys:
            if records and stamp_ns - records[-1].stamp_ns > _SEQUENCE_GAP_NS:
                sequence += 1
            name = f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
            T_map_cam = truth.at(stamp_ns) if truth is not None else None
            records.append(FrameRecord(name, f"{self.path.stem}-{sequence}", stamp_ns, T_map_cam))
        return records


def open_recording(path: Path, topics: Mapping[str, str] | None = None) -> RosbagSource:
    """Open a bag; ``topics`` is described in ``bag_topics``. Raises SourceError."""
    return RosbagSource(path, topics)
