"""Poses in a bag: its transforms, its ground truth and its odometry."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from localizer_ros.core.se3 import SE3, covariance_from_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.transform_tree import TransformError, TransformTree
from localizer_ros.core.types import Array
from localizer_ros.datasets.bag_transforms import BagTransforms
from localizer_ros.datasets.pose_coverage import MAX_GAP_NS, PoseSeries

# What a robot is called in TF, where no odometry says it.
BASE_FRAMES = ("base_link", "base_footprint", "base")


# --- messages, of ROS 1 and 2 ---


def stamp_ns(message: Any) -> int:
    """Stamp of a message with a header, nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def frame_ids(message: Any) -> tuple[str, str]:
    """Parent and child frame; child is empty for messages without one."""
    child = str(getattr(message, "child_frame_id", ""))
    # ROS 1 allowed a leading slash.
    return str(message.header.frame_id).lstrip("/"), child.lstrip("/")


def pose_of(message: Any) -> SE3:
    """``T_parent_child`` of a stamped pose or transform, or of an odometry.

    Raises:
        ValueError: not a pose (a quaternion of zeros, a value that is not finite).
    """
    inner = message.transform if hasattr(message, "transform") else message.pose
    inner = getattr(inner, "pose", inner)
    if hasattr(inner, "position"):
        t, q = inner.position, inner.orientation
    else:
        t, q = inner.translation, inner.rotation
    return SE3.from_unit_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


# --- collected in one pass over the bag ---


@dataclass
class BagPoses:
    """Poses of a bag as they come. A message without a pose in it (a quaternion of zeros) is counted, not used.

    Attributes:
        odom_frame, odom_child_frame: what the odometry relates; empty without one.
    """

    odom_frame: str = ""
    odom_child_frame: str = ""
    _transforms: BagTransforms = field(default_factory=BagTransforms)
    _odometry: dict[int, tuple[SE3, Array]] = field(default_factory=dict)
    _topics: dict[str, dict[str, dict[int, SE3]]] = field(default_factory=dict)
    """Poses by topic, by the frame whose they are (empty where the message does not say) and by stamp."""
    _rejected: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_transforms(self, topic: str, message: Any, static: bool) -> None:
        """Take a TF message."""
        for transform in message.transforms:
            T = self._pose(topic, transform)
            if T is not None:
                self._transforms.add(*frame_ids(transform), T, None if static else stamp_ns(transform))

    def add_odometry(self, topic: str, message: Any) -> None:
        """Take a nav_msgs/Odometry."""
        self.odom_frame, self.odom_child_frame = frame_ids(message)
        T_odom_base = self._pose(topic, message)
        if T_odom_base is not None:
            S_ros = np.asarray(message.pose.covariance, dtype=np.float64).reshape(6, 6)
            self._odometry[stamp_ns(message)] = T_odom_base, covariance_from_ros(T_odom_base, S_ros)

    def add_poses(self, topic: str, message: Any) -> None:
        """Take a message with one pose, of any type that has one."""
        T = self._pose(topic, message)
        if T is not None:
            self._topics.setdefault(topic, {}).setdefault(frame_ids(message)[1], {})[stamp_ns(message)] = T

    def odometry(self) -> Trajectory | None:
        """``T_odom_base`` over time, with covariances where all messages know theirs; None without odometry."""
        if not self._odometry:
            return None
        stamps = sorted(self._odometry)
        covariances = np.stack([self._odometry[stamp][1] for stamp in stamps])
        # All zeros is how messages say that they do not know.
        known = bool(np.all(np.isfinite(covariances)) and np.all(np.any(covariances != 0.0, axis=(1, 2))))
        return Trajectory(
            np.array(stamps, dtype=np.int64),
            tuple(self._odometry[stamp][0] for stamp in stamps),
            covariances if known else None,
        )

    def has_poses(self, topic: str) -> bool:
        """Whether messages with a pose of their own came on a topic (TF has none)."""
        return topic in self._topics or topic in self._rejected

    def transforms(self) -> TransformTree:
        """The one tree of all frames."""
        return self._transforms.tree()

    def topic_series(self, topic: str, camera: str, frame: str | None) -> tuple[PoseSeries | None, str]:
        """The camera's poses by a topic, and what keeps them from being the camera's (empty when nothing does).

        Poses of another frame than the camera become the camera's over the transforms.

        Args:
            topic: of the messages.
            camera: optical frame of the images.
            frame: whose poses these are; None takes what the messages say, and the camera where they say nothing.
        """
        by_body = self._topics.get(topic, {})
        if not by_body:
            return None, f"{topic} holds no poses ({self._rejected.get(topic, (0, 'no messages'))[1]})"
        said = max(by_body, key=lambda name: len(by_body[name]))
        body = frame or said or camera
        poses = Trajectory.from_items(by_body[said].items())
        tree = self.transforms()
        known = (tree.find_fixed(body, camera) is not None) or any(
            _lookup(tree, body, camera, int(stamp)) is not None for stamp in poses.stamps_ns[::10]
        )
        if body != camera and not known:
            return None, f"{topic} is of frame {body!r}, which no transform joins to the camera {camera!r}"

        def pose_at(stamp: int) -> SE3 | None:
            T_map_body = poses.at(stamp, MAX_GAP_NS)
            T_body_cam = SE3.identity() if body == camera else _lookup(tree, body, camera, stamp)
            return None if T_map_body is None or T_body_cam is None else T_map_body @ T_body_cam

        return PoseSeries(f"topic {topic}", poses.stamps_ns, pose_at), ""

    def transform_series(self, camera: str) -> tuple[PoseSeries | None, str]:
        """The camera's poses over TF from the map, and why there are none (empty when TF tells nothing of a map)."""
        series = self._transforms.camera_series(camera)
        reached = self._transforms.reached()
        if series is None and reached:
            return None, f"TF moves {', '.join(reached)} in the map, but joins none to the camera {camera!r}"
        return series, ""

    def other_topics(self, used: str | None) -> dict[str, Trajectory]:
        """Poses on the topics that are not used, for a list of what there is."""
        return {
            topic: Trajectory.from_items(item for poses in by_body.values() for item in poses.items())
            for topic, by_body in self._topics.items()
            if topic != used
        }

    def problems(self, topics: Collection[str]) -> list[str]:
        """Messages on some topics that were left out, one line a topic."""
        return [
            f"{count} messages on {topic} are left out ({why})"
            for topic, (count, why) in self._rejected.items()
            if topic in topics
        ]

    def _pose(self, topic: str, message: Any) -> SE3 | None:
        try:
            return pose_of(message)
        except ValueError as error:
            self._rejected[topic] = self._rejected.get(topic, (0, ""))[0] + 1, str(error)
            return None


def _lookup(tree: TransformTree, target: str, source: str, stamp: int) -> SE3 | None:
    try:
        return tree.lookup(target, source, stamp)
    except TransformError:
        return None
