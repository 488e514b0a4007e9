"""TF as others publish it, and who else claims a frame that the localizer publishes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from tf2_msgs.msg import TFMessage

from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.ros.conversions import stamp_ns, transform_from_msg
from localizer_ros.ros.qos_report import node_name

TF_TOPIC, TF_STATIC_TOPIC = "/tf", "/tf_static"
TF_QOS = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
TF_STATIC_QOS = QoSProfile(
    depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
# Every publisher of /tf_static keeps its own last message for late joiners: room for all of them.
TF_STATIC_LISTENER_QOS = QoSProfile(
    depth=100, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
# Static transforms that differ by less are the same one, rounded.
_SAME_M, _SAME_DEG = 1e-3, 0.05
# Who has published an edge is taken to do so for this long after its last message: tf2 drops what is older than 10 s.
_HOLDS_S = 5.0
# Static transforms of a publisher that is known arrive within this time, or not at all.
_STATIC_WITHIN_S = 1.0
# Own messages come back over /tf; so many of them are under way at most.
_OWN_REMEMBERED = 256


class TransformListener:
    """Subscribes to /tf and /tf_static. What it knows is what others publish, without the localizer's own edge.

    Args:
        node: that subscribes.
        map_frame: whose child is the localizer's edge: an edge of it that another node publishes is a rival's, and is
            no way to look anything up.
        on_change: called after every message of others, in the executor's thread.
        on_contradiction: told in words of a static transform that differs from what was said before.
        clock: seconds of a clock that never goes back.
        history_s: seconds of moving transforms that are kept.
    """

    def __init__(
        self,
        node: Node,
        map_frame: str,
        on_change: Callable[[], None],
        on_contradiction: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        history_s: float = 10.0,
    ) -> None:
        self._node, self._map_frame, self._on_change = node, map_frame, on_change
        self._on_contradiction = on_contradiction
        self._clock, self._history_s = clock, history_s
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._since_s = clock()
        self._forget()

    def subscribe(self) -> None:
        """Listen from now on."""
        create = self._node.create_subscription
        self._since_s = self._clock()
        self._subscriptions.append(
            create(TFMessage, TF_STATIC_TOPIC, self._on_static, TF_STATIC_LISTENER_QOS)
        )
        self._subscriptions.append(create(TFMessage, TF_TOPIC, self._on_moving, TF_QOS))

    def unsubscribe(self) -> None:
        """Listen no more, and forget what was heard."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._forget()

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> SE3:
        """``T_target_source``, see ``TransformTree.lookup``."""
        with self._lock:
            return self._tree.lookup(target, source, stamp_ns)

    def latest(self, target: str, source: str) -> int | None:
        """See ``TransformTree.latest``."""
        with self._lock:
            return self._tree.latest(target, source)

    def root(self, frame: str) -> str | None:
        """The outermost frame above ``frame``, itself where it has no parent: the only one that may be given another.

        None while static transforms are known to be on their way.
        """
        with self._lock:
            early = not self._heard_static and self._clock() - self._since_s < _STATIC_WITHIN_S
            if early and self._node.count_publishers(TF_STATIC_TOPIC) > 0:
                return None
            return self._tree.ancestors(frame)[-1]

    def rigid(self, target: str, source: str) -> bool:
        """Whether nothing moves between two frames."""
        with self._lock:
            return self._tree.find_fixed(target, source) is not None

    def clear_moving(self) -> None:
        """Forget moving frames: time went back."""
        with self._lock:
            self._tree.clear_moving()

    def own(self, transform: TransformStamped) -> None:
        """A transform that the localizer is about to publish: it will be heard, and is no rival's."""
        with self._lock:
            self._own.append(_identity(transform))

    def rival(self, child: str, base_frame: str) -> str:
        """Who else says where the robot is, in one sentence; empty when nobody does.

        Args:
            child: frame that the localizer gives a parent.
            base_frame: robot's frame, at or below ``child``.
        """
        now_s = self._clock()
        with self._lock:
            above = {*self._tree.ancestors(base_frame), child}
            edges = [
                (parent, frame)
                for (parent, frame), heard_s in self._claims.items()
                if frame in above and now_s - heard_s < _HOLDS_S
            ]
            parent = self._tree.parent(child)
            if parent is not None and now_s - self._heard_s.get(child, -math.inf) < _HOLDS_S:
                edges.append((parent, child))
        if not edges:
            return ""
        parent, frame = edges[0]
        return f"{parent} -> {frame} is published by another node ({self._publishers()})"

    def disputed(self, base_frame: str) -> str:
        """A frame between the camera's robot and the root to which others give two parents; empty when none is."""
        now_s = self._clock()
        with self._lock:
            for frame in self._tree.ancestors(base_frame):
                other, heard_s = self._disputes.get(frame, ("", -math.inf))
                if now_s - heard_s < _HOLDS_S:
                    return f"{frame} has two parents in TF, {self._tree.parent(frame)} and {other}"
        return ""

    def _publishers(self) -> str:
        topics = (TF_TOPIC, TF_STATIC_TOPIC)
        infos = [info for topic in topics for info in self._node.get_publishers_info_by_topic(topic)]
        me = self._node.get_fully_qualified_name()
        names = sorted({name for info in infos if (name := node_name(info)) and name != me})
        return (
            f"publishers of TF: {', '.join(names)}" if names else "no other publisher of TF is known any more"
        )

    def _forget(self) -> None:
        with self._lock:
            self._tree = TransformTree(self._history_s)
            self._heard_static = False
            # When an edge of others was heard last, by its child; for ever, where it is static.
            self._heard_s: dict[str, float] = {}
            # Edges of the map frame that others publish.
            self._claims: dict[tuple[str, str], float] = {}
            # Second parents that others give a frame.
            self._disputes: dict[str, tuple[str, float]] = {}
            self._own: deque[tuple[Any, ...]] = deque(maxlen=_OWN_REMEMBERED)

    def _on_static(self, message: TFMessage) -> None:
        self._heard_static = True
        self._remember(message, static=True)

    def _on_moving(self, message: TFMessage) -> None:
        self._remember(message, static=False)

    def _remember(self, message: TFMessage, static: bool) -> None:
        changed = False
        for transform in message.transforms:
            parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
            if parent == self._map_frame and self._is_own(transform):
                continue
            changed = True
            try:
                T_parent_child = transform_from_msg(transform)
            except ValueError as error:
                self._node.get_logger().warning(
                    f"TF {parent!r} -> {child!r} is ignored: {error}", throttle_duration_sec=5.0
                )
                continue
            if static:
                self._compare(parent, child, T_parent_child)
            self._set(parent, child, T_parent_child, None if static else stamp_ns(transform.header.stamp))
        if changed:
            self._on_change()

    def _compare(self, parent: str, child: str, T_parent_child: SE3) -> None:
        """Tell of a static transform that differs from the one before: two nodes publish it, or it is no static one."""
        with self._lock:
            known = self._tree.fixed(parent, child)
        if known is None:
            return
        moved_m, turned_deg = known.distance_to(T_parent_child), math.degrees(known.angle_to(T_parent_child))
        if moved_m > _SAME_M or turned_deg > _SAME_DEG:
            self._on_contradiction(
                f"static transform {parent} -> {child} has changed by {moved_m:.3f} m and {turned_deg:.2f} deg: two "
                "nodes publish it, or something was moved; the newest counts"
            )

    def _is_own(self, transform: TransformStamped) -> bool:
        with self._lock:
            return _identity(transform) in self._own

    def _set(self, parent: str, child: str, T_parent_child: SE3, stamp: int | None) -> None:
        now_s = self._clock()
        heard_s = math.inf if stamp is None else now_s
        with self._lock:
            if parent == self._map_frame:
                self._claims[parent, child] = heard_s
                return
            known = self._tree.parent(child)
            if known not in (None, parent) and now_s - self._heard_s[child] < _HOLDS_S:
                # tf2 would take them in turns, and with each of them forget the other's history.
                self._disputes[child] = (parent, heard_s)
                return
            self._heard_s[child] = heard_s
            self._tree.set(parent, child, T_parent_child, stamp)


def _identity(transform: TransformStamped) -> tuple[Any, ...]:
    t = transform.transform.translation
    return transform.child_frame_id, stamp_ns(transform.header.stamp), t.x, t.y, t.z
