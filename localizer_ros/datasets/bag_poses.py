"""Poses in a bag: its transforms, its ground truth and its odometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.se3 import SE3, covariance_from_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.core.types import Array, SourceError

# What the map is called in TF.
MAP_FRAMES = ("map", "world")
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
    return SE3.from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


# --- collected in one pass over the bag ---


@dataclass
class BagPoses:
    """Poses of a bag as they come.

    Args:
        path: the bag, for messages.

    Attributes:
        transforms: the tree of ``/tf_static``.
        odom_frame, odom_child_frame: what the odometry relates; empty without one.
    """

    path: Path
    transforms: TransformTree = field(default_factory=lambda: TransformTree(history_s=None))
    odom_frame: str = ""
    odom_child_frame: str = ""
    _odometry: dict[int, tuple[SE3, Array]] = field(default_factory=dict)
    _truth: list[Any] = field(default_factory=list)
    """Messages with a header of their own: those of a TF message one by one."""

    def add_static(self, topic: str, message: Any) -> None:
        """Take the fixed transforms of a TF message."""
        for transform in message.transforms:
            self.transforms.set(*frame_ids(transform), self._pose(topic, transform), None)

    def add_odometry(self, topic: str, message: Any) -> None:
        """Take a nav_msgs/Odometry."""
        self.odom_frame, self.odom_child_frame = frame_ids(message)
        T_odom_base = self._pose(topic, message)
        S_ros = np.asarray(message.pose.covariance, dtype=np.float64).reshape(6, 6)
        self._odometry[stamp_ns(message)] = T_odom_base, covariance_from_ros(T_odom_base, S_ros)

    def add_ground_truth(self, message: Any) -> None:
        """Take a message of true poses: of any type that has one, or of TF."""
        self._truth.extend(message.transforms if hasattr(message, "transforms") else [message])

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

    def ground_truth(
        self, topic: str, is_tf: bool, camera: str, frame: str | None
    ) -> tuple[Trajectory | None, str | None]:
        """``T_map_cam`` over time, None when there is none, and the frame that nothing joins to the camera, if any.

        Poses of another frame than the camera become the camera's over the fixed transforms.

        Args:
            topic: of the messages.
            is_tf: they are all transforms of the robot, of which those between the map and the frame count.
            camera: optical frame of the images.
            frame: whose poses these are; None takes what the messages say, and the camera where they say nothing.
        """
        items: list[tuple[int, SE3]] = []
        T_frame_cam: dict[str, SE3 | None] = {}
        for message in self._truth:
            parent, child = frame_ids(message)
            body = frame or child or camera
            if is_tf and (parent not in MAP_FRAMES or child != body):
                continue
            if body not in T_frame_cam:
                T_frame_cam[body] = self.transforms.find_fixed(body, camera)
            T_body_cam = T_frame_cam[body]
            if T_body_cam is not None:
                items.append((stamp_ns(message), self._pose(topic, message) @ T_body_cam))
        unjoined = next((body for body, T in T_frame_cam.items() if T is None), None)
        return Trajectory.from_items(items) if items else None, unjoined

    def _pose(self, topic: str, message: Any) -> SE3:
        try:
            return pose_of(message)
        except ValueError as error:
            raise SourceError(f"{self.path}: {topic}: {error}") from error
