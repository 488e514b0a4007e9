"""Whether the QoS of this node and of those it talks to fit, told with both sides for as long as they do not."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible, qos_policy_name_from_kind

from localizer_ros.ros.health import Health

# What the middleware calls a node that it has not heard of yet.
_UNKNOWN = "_NODE_NAME_UNKNOWN_"


class QosReport:
    """Tells of QoS that does not fit, in the log once and in the diagnostics until it does.

    Args:
        node: that talks.
        health: keeps the note.
    """

    def __init__(self, node: Node, health: Health) -> None:
        self._node, self._log, self._health = node, node.get_logger(), health
        self._inputs: dict[str, QoSProfile] = {}

    def input_differs(self, topic: str, ours: QoSProfile, event: Any) -> None:
        """A publisher of ``topic`` offers less than this node's subscription asks for."""
        resolved = self._node.resolve_topic_name(topic)
        self._inputs[resolved] = ours
        settings = {
            self._health.image_topic: "image_reliability, or ",
            "camera_info": "camera_info_reliability, or ",
        }
        theirs = self._misfits(resolved, ours) or "the publisher offers less"
        self._log.warning(
            f"QoS of {resolved} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no "
            f"messages will come: {theirs}; this node asks for {_text(ours)}. Set "
            f"{settings.get(topic, '')}qos_overrides.{resolved}.subscription.reliability"
        )
        self._health.note(f"QoS {resolved}", f"does not fit: {theirs}; asked for {_text(ours)}")

    def output_differs(self, name: str, ours: QoSProfile, event: Any) -> None:
        """A subscriber of the topic ``~/name`` asks for more than this node offers."""
        topic = self._node.resolve_topic_name(f"~/{name}")
        theirs = ", ".join(
            f"{node_name(info) or 'a node'} asks for {_text(info.qos_profile)}"
            for info in self._node.get_subscriptions_info_by_topic(topic)
        )
        self._log.warning(
            f"QoS of {topic} does not fit ({qos_policy_name_from_kind(event.last_policy_kind)}), no messages "
            f"will be sent: {theirs or 'the subscriber'}; this node offers {_text(ours)}"
        )

    def refresh(self) -> None:
        """Correct the notes: a publisher may have gone, or be known by name meanwhile."""
        for topic, ours in list(self._inputs.items()):
            theirs = self._misfits(topic, ours)
            if not theirs:
                self._inputs.pop(topic, None)
            note = f"does not fit: {theirs}; asked for {_text(ours)}" if theirs else None
            self._health.note(f"QoS {topic}", note)

    def _misfits(self, topic: str, ours: QoSProfile) -> str:
        """The publishers that offer less than is asked for; empty when there are none."""
        return ", ".join(
            f"{node_name(info) or 'a node'} offers {_text(info.qos_profile)}"
            for info in self._node.get_publishers_info_by_topic(topic)
            if qos_check_compatible(info.qos_profile, ours)[0] == QoSCompatibility.ERROR
        )


def node_name(info: Any) -> str:
    """The full name of a publisher's or a subscriber's node; empty while nobody knows it."""
    if _UNKNOWN in info.node_name:
        return ""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _text(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"
