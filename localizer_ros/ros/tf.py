"""TF out and in: what tf2_ros does on the wire, without needing it.

A ``TransformBroadcaster`` is a publisher of ``TFMessage`` and a listener is a subscription; both are written
out here, so that one code path, the tested one, runs with and without tf2_ros (which has no wheel).

Who publishes what (REP-105): the localizer publishes ``map -> odom_frame``, or, where that is not set, ``map ->`` the
root of the tree that the robot's frame is in, the only frame that has no parent yet. It publishes nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.map_correction import MapCorrection
from localizer_ros.core.robot_pose import map_to_odom
from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformError
from localizer_ros.ros.conversions import transform_msg
from localizer_ros.ros.transform_listener import TF_QOS, TF_TOPIC, TransformListener

# Poses that wait for the odometry of their time: two seconds at 30 Hz, more than any odometry is late.
_MOST_WAITING = 64
_RECENT = 300


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A pose that is not out yet, and when it came."""

    stamp: int
    T_map_base: SE3
    base_frame: str
    came_s: float


class MapBroadcaster:
    """Publishes the one TF edge that the localizer owns.

    Where something moves between that edge and the robot, ``T_map_odom = T_map_base @ T_base_odom`` needs the odometry
    of the image's own time. It may come after the pose: poses wait for it, the newest whose odometry is known goes out,
    and none is ever combined with that of another time. Corrections of the odometry go out in steps that a controller
    can bear, see ``MapCorrection``. Where another node publishes the edge as well, this one is
    silent: a frame has one parent, and listeners would be thrown from one answer to the other.

    Args:
        node: that publishes.
        listener: knows what is between ``odom_frame``, or the root, and the robot's frame.
        map_frame: parent.
        config: ``odom_frame`` is the child, or where it is empty the root of the tree; ``transform_tolerance`` is how
            far ahead ``map -> odom_frame`` is dated; without ``publish_tf`` there is not even a publisher.
    """

    def __init__(
        self,
        node: Node,
        listener: TransformListener,
        map_frame: str,
        config: RunConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher: Any = None
        self._node, self._listener = node, listener
        self._map_frame, self._odom_frame = map_frame, config.odom_frame
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque(maxlen=_MOST_WAITING)
        self._correction = MapCorrection(config.correction_m_s)
        self._lateness_ms: deque[float] = deque(maxlen=_RECENT)
        self._owed_since_s: float | None = None
        self._child = self._disputed = ""
        self.waiting_for = ""
        """What the newest pose is waiting for, in words; empty when none waits."""
        self.reconfigure(config)

    def reconfigure(self, config: RunConfig) -> None:
        """Publish or be silent, with another tolerance and other rates, from now on."""
        with self._lock:
            self._tolerance_ns = round(config.transform_tolerance * 1e9)
            self._correction.reconfigure(config.correction_m_s)
            if config.publish_tf and self._publisher is None:
                self._publisher = self._node.create_publisher(TFMessage, TF_TOPIC, TF_QOS)
        if not config.publish_tf:
            self.destroy()

    def send(self, stamp: int, T_map_base: SE3, base_frame: str, contradicted: bool = False) -> None:
        """Publish the pose of an image, at once or as soon as the odometry of that time is known.

        Odometry that is contradicted does not carry the robot from pose to pose: the corrections do, however fast.
        """
        with self._lock:
            if self._publisher is None:
                return
            if contradicted:
                self._correction.restart("odometry contradicts the images")
            now_s = self._clock()
            self._waiting.append(_Waiting(stamp, T_map_base, base_frame, now_s))
            self._owed_since_s = now_s if self._owed_since_s is None else self._owed_since_s
        self.retry()

    def retry(self) -> None:
        """Publish the newest pose whose odometry is known by now; those before it are of no use any more."""
        with self._lock:
            if not self._waiting:
                return
            try:
                self._publish_newest()
            except TransformError as error:
                self.waiting_for = str(error)

    def silent_s(self) -> float:
        """For how long poses have waited without any transform going out; 0 when none waits."""
        owed_s = self._owed_since_s
        return 0.0 if owed_s is None else self._clock() - owed_s

    def details(self) -> dict[str, str]:
        """What is published, what it waits for and how late it is, for the diagnostics; what is empty has no news."""
        with self._lock:
            late = np.percentile(self._lateness_ms, (50, 99)) if self._lateness_ms else None
            correction = self._correction
        jumps = f"{correction.jumps}; the last: {correction.last_jump}" if correction.jumps else "0"
        return {
            "TF": self.edge,
            "TF waits for": self.waiting_for,
            "TF lateness": "" if late is None else f"p50 {late[0]:.1f} ms, p99 {late[1]:.1f} ms",
            "TF jumps": jumps if self._child else "",
        }

    @property
    def edge(self) -> str:
        """The edge that was published last, and what others do to the frames below it; empty when none was."""
        parts = (f"{self._map_frame} -> {self._child}" if self._child else "", self._disputed)
        return "; ".join(filter(None, parts))

    def forget(self) -> None:
        """Drop the poses that wait: they are not to be trusted any more, and the next one was found anew."""
        with self._lock:
            self._forget()

    def destroy(self) -> None:
        """Stop publishing."""
        with self._lock:
            self._forget()
            publisher, self._publisher, self._child = self._publisher, None, ""
        if publisher is not None:
            self._node.destroy_publisher(publisher)

    def _forget(self) -> None:
        self._waiting.clear()
        self._owed_since_s, self.waiting_for = None, ""
        self._correction.restart()

    def _publish_newest(self) -> None:
        """Raises TransformError where none of the poses can go out yet."""
        newest = self._waiting[-1]
        child = self._free_frame(newest.base_frame)
        self._disputed = self._listener.disputed(newest.base_frame)
        known_ns = self._listener.latest(child, newest.base_frame)
        ready = next((w for w in reversed(self._waiting) if known_ns is None or w.stamp <= known_ns), newest)
        T_child_base = self._listener.lookup(child, ready.base_frame, ready.stamp)
        while self._waiting.popleft() is not ready:
            pass
        now_s = self._clock()
        self._lateness_ms.append((now_s - ready.came_s) * 1e3)
        self._owed_since_s = now_s if self._waiting else None
        self.waiting_for = ""
        T_map_child = map_to_odom(ready.T_map_base, T_child_base)
        if self._listener.rigid(child, ready.base_frame):
            # No odometry: the edge is the pose itself.
            self._publish(ready.stamp, T_map_child, child)
            return
        jumps = self._correction.jumps
        T_map_child = self._correction.step(ready.stamp, T_map_child, T_child_base)
        if self._correction.jumps > jumps:
            self._node.get_logger().warning(
                f"{self._map_frame} -> {child} jumps by {self._correction.last_jump}",
                throttle_duration_sec=1.0,
            )
        self._publish(ready.stamp + self._tolerance_ns, T_map_child, child)

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
