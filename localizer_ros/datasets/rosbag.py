"""Bags: rosbag2 (sqlite3 or mcap, a folder or one file) and ROS 1, with raw or compressed images.

Nothing but stamps is kept in memory. Images are read where the bag has them; reading in order reads the bag once.

Which topics are used, and what the option ``topics`` may choose, is told in ``bag_topics``. A ``camera.yaml`` in the
folder goes before the camera_info topic. Poses of another frame than the camera become the camera's over TF at
the image's stamp; without a topic of true poses the transforms from the map to the camera are taken.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localizer_ros.core.files import is_there
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, ConfigError, Frame, FrameRejected, SourceError
from localizer_ros.datasets.bag_choice import choose_poses
from localizer_ros.datasets.bag_file import BagFile, RawMessage
from localizer_ros.datasets.bag_poses import BASE_FRAMES, BagPoses, frame_ids
from localizer_ros.datasets.bag_topics import (
    COMPRESSED_IMAGE,
    choose_topics,
    is_rectified,
    pose_topics,
    transform_topics,
)
from localizer_ros.datasets.calibration import camera_from_info, read_camera_yaml
from localizer_ros.datasets.folder import guessed_camera
from localizer_ros.datasets.images import check_size, decode_message, message_size_px
from localizer_ros.datasets.pose_coverage import PoseSeries
from localizer_ros.datasets.source import (
    FrameNames,
    FrameRecord,
    Stamps,
    check_order,
    check_readable,
    split_error,
)

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


@dataclass
class _Found:
    """What one pass over a bag finds."""

    poses: BagPoses = field(default_factory=BagPoses)
    images: list[_ImageKey] = field(default_factory=list)
    sizes: dict[tuple[int, int], tuple[int, int] | FrameRejected | None] = field(default_factory=dict)
    """Width and height by time and occurrence of recording; why not, where an image is broken."""
    unreadable: int = 0
    """Images whose header cannot even be read."""
    camera_frame: str = ""
    camera: Camera | None = None
    no_camera: str = ""
    """Why the first camera_info is no calibration."""


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
        SourceError: not a bag, damaged, no or several image topics.
    """

    def __init__(self, path: Path, topics: Mapping[str, str] | None = None) -> None:
        wanted = dict(topics or {})
        self.path = path
        self.format = "rosbag"
        self.splits: Sequence[str] = ()
        self._bag = BagFile(path)
        self.topics, found = self._scan_whole(wanted)
        self.problems: list[str] = list(self._bag.problems)
        if found.unreadable:
            self.problems.append(f"{found.unreadable} image messages are no messages: left out")
        self._rectified = is_rectified(self.topics["image"])
        self.camera_problem: str | None = None
        self.camera = self._find_camera(found)
        poses, camera_frame = found.poses, found.camera_frame
        self.transforms = poses.transforms()
        base = poses.odom_child_frame or next((f for f in BASE_FRAMES if f in self.transforms.frames), "")
        self.T_base_cam: SE3 | None = self.transforms.find_fixed(base, camera_frame) if base else None
        usual = FrameNames()
        self.frames = FrameNames(
            camera_frame or usual.camera, base or usual.base, poses.odom_frame or usual.odom
        )
        self.odometry: Trajectory | None = poses.odometry()
        # A bag made of a format without times notes that these are made up.
        self.stamps: Stamps = "invented" if self._bag.notes.get("stamps") == "invented" else "recorded"
        self._keys = self._in_order(found.images)
        stamps_ns = [key.stamp_ns for key in self._keys]
        choice = choose_poses(poses, self.topics, wanted, camera_frame, stamps_ns)
        self.pose_problem = choice.problem
        self.problems += [*choice.problems, *poses.problems(self.topics.values())]
        self.ground_truth = "none"
        if choice.series is not None:
            self.ground_truth = self._bag.notes.get("ground_truth", choice.series.name)
        self.details = {**self._details(), "pose_candidates": choice.candidates}
        self.records: Sequence[FrameRecord] = self._make_records(choice.series)
        check_order(path, self.records)
        self.broken = self._find_broken(found)
        check_readable(self)

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

    def _scan_whole(self, wanted: Mapping[str, str]) -> tuple[dict[str, str], _Found]:
        """The topics used and what is on them; of a damaged MCAP what is whole."""
        try:
            topics = choose_topics(self.path, self._bag.types, self._bag.counts, wanted)
            return topics, self._scan(topics)
        except SourceError:
            if not self._bag.recover():
                raise
        topics = choose_topics(self.path, self._bag.types, self._bag.counts, wanted)
        return topics, self._scan(topics)

    def _scan(self, topics: Mapping[str, str]) -> _Found:
        """One pass that decodes all but images."""
        found = _Found()
        tf = transform_topics(self._bag.types, topics["image"])
        known = {**dict.fromkeys(pose_topics(self._bag.types), "poses"), **dict.fromkeys(tf, "tf")}
        known.update({topic: purpose for purpose, topic in topics.items() if purpose != "ground_truth"})
        seen: dict[int, int] = {}
        for message in self._bag.scan(known):
            purpose = known[message.topic]
            if purpose == "image":
                occurrence = seen[message.log_ns] = seen.get(message.log_ns, -1) + 1
                self._take_image(found, message, occurrence)
            elif purpose == "camera_info":
                self._take_info(found, message, is_rectified(topics["image"]))
            elif purpose == "tf":
                found.poses.add_transforms(message.topic, message.decode(), tf[message.topic])
            elif purpose == "odometry":
                found.poses.add_odometry(message.topic, message.decode())
            elif purpose == "poses":
                found.poses.add_poses(message.topic, message.decode())
        if not found.images:
            raise SourceError(f"{self.path}: topic {topics['image']} has no messages")
        return found

    def _take_image(self, found: _Found, message: RawMessage, occurrence: int) -> None:
        try:
            key = _ImageKey(self._bag.header_stamp_ns(message.data), message.log_ns, occurrence)
            image = message.decode()
        except (struct.error, SourceError):
            found.unreadable += 1
            return
        found.camera_frame = found.camera_frame or frame_ids(image)[0]
        found.images.append(key)
        try:
            found.sizes[key.log_ns, key.occurrence] = message_size_px(image)
        except FrameRejected as error:
            found.sizes[key.log_ns, key.occurrence] = error

    def _take_info(self, found: _Found, message: RawMessage, rectified: bool) -> None:
        """The first camera_info that is a calibration counts: drivers publish zeros before they have loaded theirs."""
        if found.camera is None:
            try:
                found.camera = camera_from_info(message.decode(), rectified)
            except ConfigError as error:
                found.no_camera = found.no_camera or f"{message.topic}: {error}"

    def _find_camera(self, found: _Found) -> Camera:
        folder = self.path if self.path.is_dir() else self.path.parent
        if is_there(folder / "camera.yaml"):
            return read_camera_yaml(folder / "camera.yaml")
        if found.camera is not None:
            return found.camera
        why = found.no_camera or f"no CameraInfo for {self.topics['image']}"
        self.camera_problem = (
            f"{why}; expected a camera_info topic or a ROS calibration {folder / 'camera.yaml'}"
        )
        sizes = Counter(size for size in found.sizes.values() if isinstance(size, tuple))
        if not sizes:
            raise SourceError(f"{self.path}: {self.camera_problem}")
        return guessed_camera(*sizes.most_common(1)[0][0])

    def _find_broken(self, found: _Found) -> dict[str, str]:
        """Frames whose image is cut, damaged or of another size than the camera, by name, and why."""
        broken = {}
        for record, key in zip(self.records, self._keys, strict=True):
            try:
                size_px = found.sizes[key.log_ns, key.occurrence]
                if isinstance(size_px, FrameRejected):
                    raise size_px
                if size_px is not None:
                    check_size(size_px, self.camera)
            except FrameRejected as error:
                broken[record.name] = str(error)
        return broken

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

    def _make_records(self, truth: PoseSeries | None) -> list[FrameRecord]:
        records: list[FrameRecord] = []
        sequence = 0
        for stamp_ns, _, _ in self._keys:
            if records and stamp_ns - records[-1].stamp_ns > _SEQUENCE_GAP_NS:
                sequence += 1
            name = f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
            T_map_cam = truth.pose_at(stamp_ns) if truth is not None else None
            records.append(FrameRecord(name, f"{self.path.stem}-{sequence}", stamp_ns, T_map_cam))
        return records


def open_recording(path: Path, topics: Mapping[str, str] | None = None) -> RosbagSource:
    """Open a bag; ``topics`` is described in ``bag_topics``. Raises SourceError."""
    return RosbagSource(path, topics)
