"""TF out and in: what tf2_ros does on the wire, without needing it.

A ``TransformBroadcaster`` is a publisher of ``TFMessage`` and a listener is a subscription; both are written
out here, so that one code path, the tested one, runs with and without tf2_ros (which has no wheel).

Who publishes what (REP-105): the localizer publishes ``map -> odom_frame``, or, where that is not set, ``map ->`` the
root of the tree that the robot's frame is in, the only frame that has no parent yet. It publishes nothing else.
"""

from __future__ import annotations

import threading
from typing import Any

from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.robot_pose import map_to_odom
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError
from localizer_ros.ros.conversions import transform_msg
from localizer_ros.ros.transform_listener import TF_QOS, TF_TOPIC, TransformListener


class MapBroadcaster:
    """Publishes the one TF edge that the localizer owns.

    Where something moves between that edge and the robot, ``T_map_odom = T_map_base @ T_base_odom`` needs the odometry
    of the image's own time. It may come after the pose: the newest pose waits for it, and is never combined with that
    of another time. Where another node publishes the edge as well, this one is silent: a frame has one parent, and
    listeners would be thrown from one answer to the other.

    Args:
        node: that publishes.
        listener: knows what is between ``odom_frame``, or the root, and the robot's frame.
        map_frame: parent.
        config: ``odom_frame`` is the child, or where it is empty the root of the tree; ``transform_tolerance`` is how
            far ahead ``map -> odom_frame`` is dated; without ``publish_tf`` there is not even a publisher.
    """

    def __init__(self, node: Node, listener: TransformListener, map_frame: str, config: RunConfig) -> None:
        self._publisher: Any = None
        self._node, self._listener = node, listener
        self._map_frame, self._odom_frame = map_frame, config.odom_frame
        self._lock = threading.Lock()
        self._pending: tuple[int, SE3, str] | None = None
        self._child = self._disputed = ""
        self.waiting_for = ""
        """What the pose that waits is waiting for, in words; empty when none waits."""
        self.reconfigure(config)

    def reconfigure(self, config: RunConfig) -> None:
        """Publish or be silent, with another tolerance, from now on."""
        with self._lock:
            self._tolerance_ns = round(config.transform_tolerance * 1e9)
            if config.publish_tf and self._publisher is None:
                self._publisher = self._node.create_publisher(TFMessage, TF_TOPIC, TF_QOS)
        if not config.publish_tf:
            self.destroy()

    def send(self, stamp: int, T_map_base: SE3, base_frame: str) -> None:
        """Publish the pose of an image, at once or as soon as the odometry of that time is known."""
        with self._lock:
            if self._publisher is None:
                return
            self._pending = (stamp, T_map_base, base_frame)
        self.retry()

    def retry(self) -> None:
        """Publish the pose that waits, if the odometry of its time is known by now."""
        with self._lock:
            if self._pending is None:
                return
            stamp, T_map_base, base_frame = self._pending
            try:
                child = self._free_frame(base_frame)
                self._disputed = self._listener.disputed(base_frame)
                T_child_base = self._listener.lookup(child, base_frame, stamp)
            except TransformError as error:
                self.waiting_for = str(error)
                return
            self._pending, self.waiting_for = None, ""
            ahead_ns = 0 if self._listener.rigid(child, base_frame) else self._tolerance_ns
            self._publish(stamp + ahead_ns, map_to_odom(T_map_base, T_child_base), child)

    @property
    def edge(self) -> str:
        """The edge that was published last, and what others do to the frames below it; empty when none was."""
        parts = (f"{self._map_frame} -> {self._child}" if self._child else "", self._disputed)
        return "; ".join(filter(None, parts))

    def forget(self) -> None:
        """Drop the pose that waits: it is not to be trusted any more."""
        with self._lock:
            self._pending, self.waiting_for = None, ""

    def destroy(self) -> None:
        """Stop publishing."""
        self.forget()
        with self._lock:
            publisher, self._publisher, self._child = self._publisher, None, ""
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def _free_frame(self, base_frame: str) -> str:
        """The frame to be given its place in the map. Raises TransformError where there is none."""
        child = self._odom_frame or self._listener.root(base_frame)
        if child is None:
            raise TransformError("static transforms are known to be on their way")
        if child == self._map_frame:
            raise TransformError(
                f"{child} is the frame of the map and of the robot: set another frame_id in its driver"
            )
        if rival := self._listener.rival(child, base_frame):
            raise TransformError(f"{rival}: stop that node, or set publish_tf to false")
        return child

    def _publish(self, stamp: int, T_map_child: SE3, child: str) -> None:
        if child != self._child:
            self._node.get_logger().info(f"TF: {self._map_frame} -> {child}")
        self._child = child
        transform = transform_msg(T_map_child, stamp, self._map_frame, child)
        self._listener.own(transform)
        self._publisher.publish(TFMessage(transforms=[transform]))
