"""Bags: rosbag2 (sqlite3 or mcap, a folder or one file) and ROS 1, with raw or compressed images.

Nothing but stamps is kept in memory. Images are read where the bag has them; reading in order reads the bag
once.

What is found by itself, and what the option ``topics`` overrides (``{"image": "/left/image_raw", ...}``):

``image``: the only image topic that is not depth; of a raw and a compressed one the raw.
``camera_info``: the one beside the image topic, else the only one; a ``camera.yaml`` in the folder goes
first. ``ground_truth``: a topic of poses or odometry with ``ground_truth``, ``groundtruth`` or ``mocap`` in
its name; ``/tf`` only when asked for.
``ground_truth_frame``: the frame whose poses these are; else the child frame of the message, and for messages
without one (PoseStamped) the camera's optical frame.
``odometry``: the only nav_msgs/Odometry topic that is not the ground truth.

``none`` switches one off. Poses of another frame than the camera become the camera's through ``/tf_static``.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.se3 import SE3, covariance_from_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, ConfigError, Frame, FrameRejected, SourceError
from localizer_ros.datasets.calibration import camera_from_info, read_camera_yaml
from localizer_ros.datasets.images import decode_message
from localizer_ros.datasets.source import FrameNames, FrameRecord, Stamps, check_order, split_error

_RAW, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_INFO, _ODOMETRY, _TF = "sensor_msgs/msg/CameraInfo", "nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"
_POSES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    _ODOMETRY,
)
_GROUND_TRUTH_NAMES = ("ground_truth", "groundtruth", "mocap")
_MAP_FRAMES = ("map", "world")
_BASE_FRAMES = ("base_link", "base_footprint", "base")
_OPTIONS = ("image", "camera_info", "ground_truth", "ground_truth_frame", "odometry")
# After a pause like this the motion between two frames means nothing: another drive begins.
_SEQUENCE_GAP_NS = 5_000_000_000


class RosbagSource:
    """A bag; a ``FrameSource``.

    Args:
        path: bag folder or file.
        topics: see the module.

    Attributes:
        topics: what was used, by purpose.
        frames: the bag's own names of its frames, the defaults for those it has none for.
        static: the tree of ``/tf_static``.
        details: what was assumed of it, plain values for ``localizer info``.
        problems: what is wrong with the recording but does not stop it from being used, one line each.

    Raises:
        SourceError: not a bag, damaged, no or several image topics, no calibration.
    """

    def __init__(self, path: Path, topics: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.format = "rosbag"
        self.splits: Sequence[str] = ()
        self.problems: list[str] = []
        wanted = dict(topics or {})
        for key in wanted:
            if key not in _OPTIONS:
                raise SourceError(f"{path}: unknown topic option {key!r}; known: {', '.join(_OPTIONS)}")
        self._bag = _Bag(path)
        types = self._bag.types
        self.topics: dict[str, str] = {"image": _choose_image(path, types, wanted.get("image"))}
        for purpose, topic in (
            ("camera_info", _choose_info(path, types, self.topics["image"], wanted.get("camera_info"))),
            ("ground_truth", _choose_ground_truth(path, types, wanted.get("ground_truth"))),
        ):
            if topic is not None:
                self.topics[purpose] = topic
        odometry = _choose_odometry(path, types, wanted.get("odometry"), self.topics.get("ground_truth"))
        if odometry is not None:
            self.topics["odometry"] = odometry

        content = self._scan()
        self.camera = self._find_camera(content.info)
        self.static = content.static
        base = content.odometry_frames[1] or next((f for f in _BASE_FRAMES if f in self.static.frames), "")
        self.T_base_cam: SE3 | None = self.static.find(base, content.camera_frame) if base else None
        default = FrameNames()
        self.frames = FrameNames(
            content.camera_frame or default.camera,
            base or default.base,
            content.odometry_frames[0] or default.odom,
        )
        self.odometry: Trajectory | None = _trajectory(content.odometry)
        self.details: dict[str, Any] = {
            "topics": self.topics,
            "images": "compressed" if types[self.topics["image"]] == _COMPRESSED else "raw",
            "images_taken_as": "rectified" if self._rectified else "not rectified",
            "frame_ids": {"camera": self.frames.camera, "base": self.frames.base, "odom": self.frames.odom},
        }
        truth = self._find_ground_truth(content, wanted)
        # A bag made of a format without times notes that these are made up.
        self.stamps: Stamps = "invented" if self._bag.custom.get("stamps") == "invented" else "recorded"
        self.ground_truth = "none"
        if truth is not None:
            self.ground_truth = self._bag.custom.get("ground_truth", f"topic {self.topics['ground_truth']}")
        self._keys, self.records = self._order(content.images, truth)
        check_order(path, self.records)
        self.read(0)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        record = self.records[index]
        log_ns, occurrence = self._keys[index]
        message: Any = self._bag.read(self.topics["image"], log_ns, occurrence)
        try:
            return Frame(record.stamp_ns, decode_message(message), self.camera, record.name)
        except FrameRejected as error:
            where = f"{self.path}: {self.topics['image']} at {record.name} s"
            raise SourceError(f"{where}: {error}") from error

    def split(self, name: str) -> RosbagSource:
        """See ``FrameSource.split``; a bag has no parts."""
        if name != "all":
            raise split_error(self.path, name, self.splits)
        return self

    def _scan(self) -> _Content:
        """One pass over the bag that decodes everything but images."""
        content = _Content()
        purposes = {topic: purpose for purpose, topic in self.topics.items()}
        if "/tf_static" in self._bag.types:
            purposes["/tf_static"] = "static"
        seen: dict[int, int] = {}
        for topic, log_ns, raw, decode in self._bag.scan(purposes):
            purpose = purposes[topic]
            if purpose == "image":
                occurrence = seen[log_ns] = seen.get(log_ns, -1) + 1
                content.images.append((self._bag.header_stamp_ns(raw), log_ns, occurrence))
                if len(content.images) == 1:
                    content.camera_frame = _frames(decode())[0]
            elif purpose == "camera_info":
                content.info = decode() if content.info is None else content.info
            elif purpose == "static":
                for transform in decode().transforms:
                    content.static.add(*_frames(transform), _pose(transform.transform, self.path, topic))
            elif purpose == "odometry":
                content.add_odometry(decode(), self.path, topic)
            elif purpose == "ground_truth":
                message = decode()
                parts = message.transforms if hasattr(message, "transforms") else [message]
                content.truth.extend((_frames(part), _stamp_ns(part), part) for part in parts)
        if not content.images:
            raise SourceError(f"{self.path}: topic {self.topics['image']} has no messages")
        return content

    @property
    def _rectified(self) -> bool:
        """By convention of image_proc, rectified images are on a topic whose last part says so."""
        return "rect" in _base_topic(self.topics["image"]).rsplit("/", 1)[-1]

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

    def _find_ground_truth(self, content: _Content, wanted: Mapping[str, str]) -> Trajectory | None:
        """``T_map_cam`` over time from the ground truth topic."""
        topic = self.topics.get("ground_truth")
        if topic is None:
            return None
        is_tf = self._bag.types[topic] == _TF
        items: list[tuple[int, SE3]] = []
        T_child_cam: dict[str, SE3 | None] = {}
        for (parent, child), stamp_ns, part in content.truth:
            if is_tf and parent not in _MAP_FRAMES:
                continue
            frame = wanted.get("ground_truth_frame") or child or content.camera_frame
            if is_tf and child != frame:
                continue
            if frame not in T_child_cam:
                T_child_cam[frame] = content.static.find(frame, content.camera_frame)
            T_frame_cam = T_child_cam[frame]
            if T_frame_cam is not None:
                items.append((stamp_ns, _pose(_inner(part), self.path, topic) @ T_frame_cam))
        unknown = [frame for frame, T in T_child_cam.items() if T is None]
        if unknown:
            # Without the transform these are poses of something else; taking them as the camera's would be a
            # lie.
            self.problems.append(
                f"ground truth on {topic} is of frame {unknown[0]!r}, which no static transform joins to the "
                f"camera {content.camera_frame!r}: not used"
            )
        return Trajectory.from_items(items) if items else None

    def _order(
        self, images: list[tuple[int, int, int]], truth: Trajectory | None
    ) -> tuple[list[tuple[int, int]], list[FrameRecord]]:
        """Keys into the bag and records, in order of the images' own stamps."""
        if all(stamp_ns <= 0 for stamp_ns, _, _ in images):
            self.problems.append("images have no stamps: the times of recording are used")
            images = [(log_ns, log_ns, occurrence) for _, log_ns, occurrence in images]
        stamps = np.array([stamp_ns for stamp_ns, _, _ in images], dtype=np.int64)
        if np.any(np.diff(stamps) < 0):
            self.problems.append(
                f"stamps go back {int(np.sum(np.diff(stamps) < 0))} times: frames are sorted"
            )
        keys: list[tuple[int, int]] = []
        records: list[FrameRecord] = []
        repeated = drive = 0
        for stamp_ns, log_ns, occurrence in sorted(images):
            if records and stamp_ns == records[-1].stamp_ns:
                repeated += 1
                continue
            if records and stamp_ns - records[-1].stamp_ns > _SEQUENCE_GAP_NS:
                drive += 1
            keys.append((log_ns, occurrence))
            name = f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
            T_map_cam = truth.at(stamp_ns) if truth is not None else None
            records.append(FrameRecord(name, f"{self.path.stem}-{drive}", stamp_ns, T_map_cam))
        if repeated:
            self.problems.append(f"{repeated} frames repeat the stamp of another: left out")
        return keys, records


def open_recording(path: Path, topics: Mapping[str, str] | None = None) -> RosbagSource:
    """Open a bag; ``topics`` is described above. Raises SourceError."""
    return RosbagSource(path, topics)


class StaticTransforms:
    """The tree of ``/tf_static``."""

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, SE3]] = {}

    @property
    def frames(self) -> set[str]:
        """All that are joined to another."""
        return set(self._edges)

    def add(self, parent: str, child: str, T_parent_child: SE3) -> None:
        """Join two frames."""
        self._edges.setdefault(parent, {})[child] = T_parent_child
        self._edges.setdefault(child, {})[parent] = T_parent_child.inverse()

    def find(self, a: str, b: str) -> SE3 | None:
        """``T_a_b``, or None when the frames are not joined."""
        reached = {a: SE3.identity()}
        queue = [a]
        while queue and b not in reached:
            frame = queue.pop(0)
            for other, T_frame_other in self._edges.get(frame, {}).items():
                if other not in reached:
                    reached[other] = reached[frame] @ T_frame_other
                    queue.append(other)
        return reached.get(b)


class _Content:
    """What one pass over a bag collects."""

    def __init__(self) -> None:
        self.images: list[tuple[int, int, int]] = []
        """Header stamp, time of recording, and which one of those recorded at that time."""
        self.camera_frame = ""
        self.info: Any = None
        self.static = StaticTransforms()
        self.odometry: dict[int, tuple[SE3, np.ndarray[Any, np.dtype[np.float64]]]] = {}
        self.odometry_frames = ("", "")
        """Parent and child."""
        self.truth: list[tuple[tuple[str, str], int, Any]] = []

    def add_odometry(self, message: Any, path: Path, topic: str) -> None:
        self.odometry_frames = _frames(message)
        T_odom_base = _pose(message.pose.pose, path, topic)
        S_ros = np.asarray(message.pose.covariance, dtype=np.float64).reshape(6, 6)
        self.odometry[_stamp_ns(message)] = T_odom_base, covariance_from_ros(T_odom_base, S_ros)


class _Bag:
    """An open bag that reads messages by topic and time; opened again in every process that uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._process = 0
        self._reader: AnyReader | None = None
        self._position: tuple[str, int, int] | None = None
        self._stream: Iterator[tuple[Connection, int, bytes]] | None = None
        reader = self._open()
        self.types = {connection.topic: connection.msgtype for connection in reader.connections}
        self.custom = bag_notes(path / "metadata.yaml")

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "types": self.types, "custom": self.custom}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._process, self._reader = threading.RLock(), 0, None
        self._position = self._stream = None

    def scan(self, topics: Mapping[str, str]) -> Iterator[tuple[str, int, bytes, Callable[[], Any]]]:
        """(topic, time of recording, bytes, decode) of all messages on some topics."""
        reader = self._open()
        connections = [c for c in reader.connections if c.topic in topics]
        try:
            for connection, log_ns, raw in reader.messages(connections):
                yield connection.topic, log_ns, raw, partial(self._decode, reader, connection, raw)
        except AnyReaderError as error:
            raise self._damaged(error) from error

    def read(self, topic: str, log_ns: int, occurrence: int) -> Any:
        """One message. Messages read in order come from one stream; any other starts a new one there."""
        with self._lock:
            reader = self._open()
            try:
                if (
                    (
                        self._stream is None
                        or self._position is None
                        or self._position > (topic, log_ns, occurrence)
                    )
                    or self._position[0] != topic
                    or log_ns - self._position[1] > 2_000_000_000
                ):
                    self._stream = None
                if self._stream is None:
                    connections = [c for c in reader.connections if c.topic == topic]
                    self._stream = reader.messages(connections, start=log_ns)
                    self._position = (topic, log_ns, 0)
                for connection, at_ns, raw in self._stream:
                    assert self._position is not None
                    current = self._position[2] if at_ns == self._position[1] else 0
                    self._position = (topic, at_ns, current + 1)
                    if (at_ns, current) == (log_ns, occurrence):
                        return self._decode(reader, connection, raw)
            except AnyReaderError as error:
                raise self._damaged(error) from error
            raise SourceError(
                f"{self._path}: message of {topic} at {log_ns} ns has gone; did the bag change?"
            )

    def header_stamp_ns(self, raw: bytes) -> int:
        """Stamp of a message that begins with a header, without decoding it."""
        # ROS 2: four bytes of encapsulation (bit 0 of the second: little endian), then the stamp. ROS 1: the
        # number of the message, then the stamp.
        little = not self._is2 or bool(raw[1] & 1)
        seconds, nanoseconds = struct.unpack_from("<iI" if little else ">iI", raw, 4)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def _open(self) -> AnyReader:
        # An open file is one position for all processes that inherited it.
        if self._reader is None or self._process != os.getpid():
            self._stream = self._position = None
            self._process = os.getpid()
            paths = _storage_paths(self._path)
            try:
                self._reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_HUMBLE))
                self._reader.open()
                # Closed with the last that uses it; at the end of the process the system does that.
                weakref.finalize(self, self._reader.close).atexit = False
            except (AnyReaderError, FileNotFoundError, ValueError, AssertionError) as error:
                raise self._damaged(error) from error
            except Exception as error:
                # sqlite's and the decompressors' own errors have no base class in common.
                raise self._damaged(error) from error
            self._is2 = self._reader.is2
        return self._reader

    def _decode(self, reader: AnyReader, connection: Connection, raw: bytes) -> Any:
        try:
            return reader.deserialize(raw, connection.msgtype)
        except Exception as error:
            raise SourceError(
                f"{self._path}: a message on {connection.topic} is not a {connection.msgtype} ({error})"
            ) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(f"{self._path}: bag cannot be read ({' '.join(str(error).split())})")


def _storage_paths(path: Path) -> list[Path]:
    """What ``rosbags`` opens: a rosbag2 folder, one storage file, or all files of a folder without
    metadata.
    """
    # rosbags takes whatever ends in .bag for a file of ROS 1: of a folder with such a name it gets the
    # storage files.
    if path.is_file() or ((path / "metadata.yaml").is_file() and path.suffix != ".bag"):
        return [path]
    for pattern in ("*.mcap", "*.db3", "*.bag"):
        if files := sorted(path.glob(pattern)):
            return files
    raise SourceError(f"{path}: no bag here; expected metadata.yaml, *.mcap, *.db3 or *.bag")


def bag_notes(file: Path) -> dict[str, str]:
    """What the writer of a rosbag2 noted about it; empty when there is nothing."""
    if not file.is_file():
        return {}
    try:
        return dict(yaml.safe_load(file.read_text())["rosbag2_bagfile_information"]["custom_data"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        # Optional since version 6; the rest of the file is checked by rosbags.
        return {}


def _base_topic(topic: str) -> str:
    """The image topic a transport belongs to."""
    return topic.removesuffix("/compressed")


def _choose_image(path: Path, types: Mapping[str, str], wanted: str | None) -> str:
    images = [topic for topic, kind in types.items() if kind in (_RAW, _COMPRESSED)]
    if wanted is not None:
        for topic in (wanted, f"{wanted}/compressed"):
            if topic in images:
                return topic
        raise SourceError(f"{path}: no image topic {wanted!r}; it has {_listing(images)}")
    colour = [t for t in images if "depth" not in t.lower() and "theora" not in t.lower()]
    # A raw topic hides its compressed copy.
    chosen = [t for t in colour if types[t] == _RAW or _base_topic(t) not in colour]
    if not chosen:
        raise SourceError(f"{path}: no image topic; it has {_listing(types)}")
    if len(chosen) > 1:
        raise SourceError(
            f"{path}: several image topics, choose one of {_listing(chosen)} by --topic image=..."
        )
    return chosen[0]


def _choose_info(path: Path, types: Mapping[str, str], image: str, wanted: str | None) -> str | None:
    infos = [topic for topic, kind in types.items() if kind == _INFO]
    if wanted is not None:
        return _named(path, types, wanted, infos, "CameraInfo")
    beside = _base_topic(image).rpartition("/")[0] + "/camera_info"
    if beside in infos:
        return beside
    return infos[0] if len(infos) == 1 else None


def _choose_ground_truth(path: Path, types: Mapping[str, str], wanted: str | None) -> str | None:
    poses = [topic for topic, kind in types.items() if kind in _POSES]
    if wanted is not None:
        transforms = [topic for topic, kind in types.items() if kind == _TF]
        return _named(path, types, wanted, poses + transforms, "pose")
    found = [t for t in poses if any(name in t.lower() for name in _GROUND_TRUTH_NAMES)]
    if len(found) > 1:
        raise SourceError(
            f"{path}: several ground truth topics, choose one of {_listing(found)} by --topic ground_truth=..."
        )
    return found[0] if found else None


def _choose_odometry(
    path: Path, types: Mapping[str, str], wanted: str | None, ground_truth: str | None
) -> str | None:
    topics = [topic for topic, kind in types.items() if kind == _ODOMETRY and topic != ground_truth]
    if wanted is not None:
        return _named(path, types, wanted, topics, "odometry")
    return topics[0] if len(topics) == 1 else None


def _named(
    path: Path, types: Mapping[str, str], wanted: str, candidates: Sequence[str], what: str
) -> str | None:
    if wanted == "none":
        return None
    if wanted not in candidates:
        kind = f" (it is a {types[wanted]})" if wanted in types else ""
        raise SourceError(f"{path}: no {what} topic {wanted!r}{kind}; it has {_listing(candidates)}")
    return wanted


def _listing(topics: Sequence[str] | Mapping[str, str]) -> str:
    return ", ".join(sorted(topics)) or "none"


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _frames(message: Any) -> tuple[str, str]:
    """Parent and child; child is empty for messages without one. ROS 1 allowed a leading slash."""
    child = str(getattr(message, "child_frame_id", ""))
    return str(message.header.frame_id).lstrip("/"), child.lstrip("/")


def _inner(message: Any) -> Any:
    """The Pose or Transform inside a stamped message."""
    inner = message.transform if hasattr(message, "transform") else message.pose
    return inner.pose if hasattr(inner, "pose") else inner


def _pose(message: Any, path: Path, topic: str) -> SE3:
    """From a Pose or a Transform."""
    if hasattr(message, "position"):
        t, q = message.position, message.orientation
    else:
        t, q = message.translation, message.rotation
    try:
        return SE3.from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
    except ValueError as error:
        raise SourceError(f"{path}: {topic}: {error}") from error


def _trajectory(items: Mapping[int, tuple[SE3, Any]]) -> Trajectory | None:
    if not items:
        return None
    stamps = sorted(items)
    covariances = np.stack([items[stamp][1] for stamp in stamps])
    # All zeros is how messages say that they do not know.
    known = bool(np.all(np.isfinite(covariances)) and np.all(np.any(covariances != 0.0, axis=(1, 2))))
    return Trajectory(
        np.array(stamps, dtype=np.int64),
        tuple(items[stamp][0] for stamp in stamps),
        covariances if known else None,
    )
