"""The node's part of a bond with a lifecycle manager: heartbeats, by which the manager sees that the process lives.

Nav2's manager waits for them where its ``bond_timeout`` is above zero, and brings its nodes down when they end. The
protocol is bondcpp's; what that does when the other side falls silent is left out: a localizer goes on without a
manager.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rclpy.qos import QoSProfile

from localizer_ros.ros.endpoints import Endpoints

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


def _message() -> Any:
    """The type of the message, which comes with Nav2; None where it is not installed."""
    try:
        from bond.msg import Status
    except ImportError:
        return None
    return Status


Status = _message()
# As Nav2's own nodes have them.
PERIOD_S, TIMEOUT_S = 0.1, 4.0
MISSING = (
    "no bond with a lifecycle manager: the ROS package bond is not installed; install it (without a "
    "distribution: tools/build_messages.sh), or set the manager's bond_timeout to 0.0"
)


class Heartbeat:
    """Publishes on ``bond`` while the node is active.

    Args:
        node: whose name the bond has.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._instance = ""
        self._publisher = (
            None if Status is None else node.create_publisher(Status, "bond", QoSProfile(depth=5))
        )

    @property
    def possible(self) -> bool:
        """Whether its message is installed."""
        return self._publisher is not None

    def begin(self, endpoints: Endpoints) -> None:
        """Beat until what ``endpoints`` makes is undone: a bond of its own each time, as the manager's is."""
        if self._publisher is None:
            return
        self._instance = str(uuid.uuid4())
        endpoints.timer(PERIOD_S, self._beat)

    def end(self) -> None:
        """Tell the manager that the end is meant."""
        if self._instance:
            self._beat(active=False)
        self._instance = ""

    def destroy(self) -> None:
        """Give the topic up."""
        self.end()
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)

    def _beat(self, active: bool = True) -> None:
        message = Status(
            id=self._node.get_name(),
            instance_id=self._instance,
            active=active,
            heartbeat_timeout=TIMEOUT_S,
            heartbeat_period=PERIOD_S,
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        assert self._publisher is not None
        self._publisher.publish(message)
