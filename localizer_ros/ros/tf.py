"""TF out and in: what tf2_ros does on the wire, without needing it.

A ``TransformBroadcaster`` is a publisher of ``TFMessage`` and a listener is a subscription; both are written
out here, so that one code path, the tested one, runs with and without tf2_ros (which has no wheel).

Who publishes what (REP-105): the localizer publishes ``map -> base_frame``, or, when ``odom_frame`` is set,
``map -> odom_frame``. It never publishes ``odom_frame -> base_frame``, nor any static transform.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.robot_pose import map_to_odom
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError, TransformTree
from localizer_ros.ros.conversions import stamp_ns, transform_from_msg, transform_msg

TF_QOS = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
TF_STATIC_QOS = QoSProfile(
    depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
# Every publisher of /tf_static keeps its own last message for late joiners: room for all of them.
TF_STATIC_LISTENER_QOS = QoSProfile(
    depth=100, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)


class TransformListener:
    """Subscribes to /tf_static, and to /tf where moving frames are needed, into a ``TransformTree``.

    Args:
        node: that subscribes.
        moving: whether /tf is needed; it costs Python time with every message on it.
        on_change: called after every message, in the executor's thread.
        history_s: seconds of moving transforms that are kept.
    """

    def __init__(
        self, node: Node, moving: bool, on_change: Callable[[], None], history_s: float = 10.0
    ) -> None:
        self._node, self._moving, self._on_change = node, moving, on_change
        self._history_s = history_s
        self._lock = threading.Lock()
        self._tree = TransformTree(history_s)
        self._subscriptions: list[Any] = []

    def subscribe(self) -> None:
        """Listen from now on."""
        create = self._node.create_subscription
        self._subscriptions.append(create(TFMessage, "/tf_static", self._on_static, TF_STATIC_LISTENER_QOS))
        if self._moving:
            self._subscriptions.append(create(TFMessage, "/tf", self._on_moving, TF_QOS))

    def unsubscribe(self) -> None:
        """Listen no more, and forget what was heard."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        with self._lock:
            self._tree = TransformTree(self._history_s)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> SE3:
        """``T_target_source``, see ``TransformTree.lookup``."""
        with self._lock:
            return self._tree.lookup(target, source, stamp_ns)

    def clear_moving(self) -> None:
        """Forget moving frames: time went back."""
        with self._lock:
            self._tree.clear_moving()

    def _on_static(self, message: TFMessage) -> None:
        self._remember(message, static=True)

    def _on_moving(self, message: TFMessage) -> None:
        self._remember(message, static=False)

    def _remember(self, message: TFMessage, static: bool) -> None:
        for transform in message.transforms:
            parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
            try:
                T_parent_child = transform_from_msg(transform)
            except ValueError as error:
                self._node.get_logger().warning(
                    f"TF {parent!r} -> {child!r} is ignored: {error}", throttle_duration_sec=5.0
                )
                continue
            with self._lock:
                self._tree.set(
                    parent, child, T_parent_child, None if static else stamp_ns(transform.header.stamp)
                )
        self._on_change()


class MapBroadcaster:
    """Publishes the one TF edge that the localizer owns.

    With ``odom_frame``, ``T_map_odom = T_map_base @ T_base_odom`` needs the odometry of the image's own time.
    It may come after the pose: the newest pose waits for it, and is never combined with that of another time.

    Args:
        node: that publishes.
        listener: knows ``odom_frame -> base_frame``; unused without ``odom_frame``.
        map_frame: parent.
        config: ``odom_frame`` is the child, or where it is empty the robot's frame; ``transform_tolerance`` is how far
            ahead ``map -> odom_frame`` is dated.
    """

    def __init__(self, node: Node, listener: TransformListener, map_frame: str, config: RunConfig) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", TF_QOS)
        self._node, self._listener = node, listener
        self._map_frame, self._odom_frame = map_frame, config.odom_frame
        self._tolerance_ns = round(config.transform_tolerance * 1e9)
        self._lock = threading.Lock()
        self._pending: tuple[int, SE3, str] | None = None
        self.waiting_for = ""
        """What the pose that waits is waiting for, in words; empty when none waits."""

    def send(self, stamp: int, T_map_base: SE3, base_frame: str) -> None:
        """Publish the pose of an image, at once or as soon as the odometry of that time is known."""
        if not self._odom_frame:
            self._publish(stamp, T_map_base, base_frame)
            return
        with self._lock:
            self._pending = (stamp, T_map_base, base_frame)
        self.retry()

    def retry(self) -> None:
        """Publish the pose that waits, if the odometry of its time is known by now."""
        with self._lock:
            if self._pending is None:
                return
            stamp, T_map_base, base_frame = self._pending
            try:
                T_odom_base = self._listener.lookup(self._odom_frame, base_frame, stamp)
            except TransformError as error:
                self.waiting_for = str(error)
                return
            self._pending, self.waiting_for = None, ""
            T_map_odom = map_to_odom(T_map_base, T_odom_base)
            self._publish(stamp + self._tolerance_ns, T_map_odom, self._odom_frame)

    def forget(self) -> None:
        """Drop the pose that waits: it is not to be trusted any more."""
        with self._lock:
            self._pending, self.waiting_for = None, ""

    def destroy(self) -> None:
        """Stop publishing."""
        self._node.destroy_publisher(self._publisher)

    def _publish(self, stamp: int, T_map_child: SE3, child: str) -> None:
        transform = transform_msg(T_map_child, stamp, self._map_frame, child)
        self._publisher.publish(TFMessage(transforms=[transform]))
