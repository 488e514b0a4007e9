"""Writing a rosbag2 without ROS: an open bag, and the messages that all who write one share."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array

TF_TOPIC, TF_STATIC_TOPIC = "/tf", "/tf_static"

Storage = Literal["mcap", "sqlite3"]
Compression = Literal["none", "jpeg", "png"]
"""What compresses the images of a bag; ``none`` writes them raw."""

_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_STORE = get_typestore(Stores.ROS2_JAZZY)


class BagWriter:
    """A rosbag2 folder that is being written; a context manager.

    Args:
        folder: empty.
        storage: storage plugin of rosbag2.
        notes: custom data of the bag, e.g. what its ground truth is.
    """

    def __init__(self, folder: Path, storage: Storage = "mcap", notes: dict[str, str] | None = None) -> None:
        # rosbags makes the folder itself.
        folder.rmdir()
        # Version 8 is read by every distribution since Iron; 9 differs in how it spells QoS.
        self._writer = Writer(folder, version=8, storage_plugin=_STORAGE[storage])
        for key, value in (notes or {}).items():
            self._writer.set_custom_data(key, value)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add_topic(self, topic: str, kind: str) -> None:
        """Make a topic that may stay empty, so that displays can be set up. Writing makes it as well."""
        if topic not in self._connections:
            qos = _qos(latched=topic == TF_STATIC_TOPIC)
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=_STORE, offered_qos_profiles=[qos]
            )

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append a message, recorded at ``stamp_ns``."""
        kind = message.__msgtype__
        self.add_topic(topic, kind)
        self._writer.write(self._connections[topic], stamp_ns, _STORE.serialize_cdr(message, kind))

    def write_transform(self, topic: str, stamp_ns: int, transform: Any) -> None:
        """Append a TFMessage with one transform."""
        self.write(topic, stamp_ns, make("tf2_msgs/msg/TFMessage", transforms=[transform]))


def make(kind: str, **fields: Any) -> Any:
    """A message of a kind such as ``std_msgs/msg/Header``."""
    return _STORE.types[kind](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return make(
        "std_msgs/msg/Header",
        stamp=make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec),
        frame_id=frame_id,
    )


def vector(kind: str, xyz: Array) -> Any:
    """geometry_msgs ``kind``: Vector3 or Point."""
    x, y, z = (float(value) for value in xyz)
    return make(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)


def quaternion(T: SE3) -> Any:
    """geometry_msgs/Quaternion of the rotation."""
    x, y, z, w = (float(value) for value in T.quaternion_xyzw())
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def pose(T: SE3) -> Any:
    """geometry_msgs/Pose."""
    return make("geometry_msgs/msg/Pose", position=vector("Point", T.t), orientation=quaternion(T))


def pose_stamped(stamp_ns: int, frame_id: str, T: SE3) -> Any:
    """geometry_msgs/PoseStamped."""
    return make("geometry_msgs/msg/PoseStamped", header=header(stamp_ns, frame_id), pose=pose(T))


def transform_stamped(stamp_ns: int, parent: str, child: str, T_parent_child: SE3) -> Any:
    """geometry_msgs/TransformStamped."""
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=make(
            "geometry_msgs/msg/Transform",
            translation=vector("Vector3", T_parent_child.t),
            rotation=quaternion(T_parent_child),
        ),
    )


def _qos(latched: bool) -> Qos:
    """Reliable; a latched topic reaches those who subscribe later."""
    never = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )
