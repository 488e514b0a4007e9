"""The node's publishers, subscriptions, services and timers: made in one way, told about in one way, gone together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from localizer_ros.ros.reporting import Reporter


class Endpoints:
    """Makes what a state of the node's lifecycle needs.

    Every QoS can be overridden by parameters, and one that does not fit the other side is reported. A callback that
    raises is logged.

    Args:
        node: that has them.
        report: told of everything that goes wrong with them.
        undo: closed at the end of the state; destroys all that was made.
    """

    def __init__(self, node: LifecycleNode, report: Reporter, undo: contextlib.ExitStack) -> None:
        self._node, self._report, self._made = node, report, undo
        # Camera images must not wait behind a slow service call, nor the other way round.
        self._group = MutuallyExclusiveCallbackGroup()

    def resolved(self, topic: str) -> str:
        """The full name of a topic, after remapping."""
        return str(self._node.resolve_topic_name(topic))

    def output(self, kind: type, name: str, depth: int = 10) -> Any:
        """A publisher on ``~/name`` that is silent while the node is not active."""
        qos = QoSProfile(depth=depth)
        publisher = self._node.create_lifecycle_publisher(
            kind,
            f"~/{name}",
            qos,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=partial(self._report.qos.output_differs, name, qos)
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._made.callback(self._node.destroy_lifecycle_publisher, publisher)
        return publisher

    def input(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        reliability: str = "best_effort",
        depth: int = 5,
        **events: Callable[[Any], None],
    ) -> None:
        """A subscription.

        Args:
            kind: type of the messages.
            topic: where they come.
            callback: what takes them.
            reliability: ``best_effort``, which fits every publisher, or ``reliable``.
            depth: of the queue.
            events: further callbacks of rclpy's ``SubscriptionEventCallbacks``, by their names.
        """
        qos = QoSProfile(depth=depth, reliability=QoSReliabilityPolicy[reliability.upper()])
        subscription = self._node.create_subscription(
            kind,
            topic,
            self._report.guarded(callback),
            qos,
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=partial(self._report.qos.input_differs, topic, qos), **events
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._made.callback(self._node.destroy_subscription, subscription)

    def service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """A service on ``~/name``."""
        service = self._node.create_service(kind, f"~/{name}", callback)
        self._made.callback(self._node.destroy_service, service)

    def timer(self, period_s: float, callback: Callable[[], None]) -> None:
        """A timer of the machine's own time: simulated time may stand still, and whoever waits wants to read why."""
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(period_s, self._report.guarded(callback), clock=clock)
        self._made.callback(self._node.destroy_timer, timer)
