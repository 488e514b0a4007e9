"""The node itself in simulated time, its messages going through memory: all but the middleware is what a robot runs.

What it publishes is serialised as on the wire, so that a message that could not be sent is an error here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import serialize_message

from localizer_ros.ros.machine import Machine
from localizer_ros.ros.node import LocalizerNode
from localizer_ros.ros.online_localizer import Opener
from localizer_ros.ros.scenario.simulation import Simulation

# Subscribed by nobody here: they would cost time and prove nothing.
_FOR_EYES = ("/path", "/markers", "/debug_image")


class Wire:
    """What connects the node to the robot.

    Args:
        simulation: the time.
        heard: called with topic and message for all that the node publishes.
    """

    def __init__(self, simulation: Simulation, heard: Callable[[str, Any], None]) -> None:
        self.simulation, self.heard = simulation, heard
        self.log: list[tuple[int, str, str]] = []
        self.subscriptions: list[Subscription] = []
        self._latched: dict[str, list[Any]] = {}
        self.services: dict[str, Callable[[Any, Any], Any]] = {}

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Subscription:
        """From now on; what is latched comes at once."""
        subscription = Subscription(topic, callback)
        self.subscriptions.append(subscription)
        for message in self._latched.get(topic, ()):
            self.simulation.at(self.simulation.now_ns, partial(callback, message))
        return subscription

    def deliver(self, topic: str, message: Any) -> bool:
        """Hand a message to whoever subscribes; False when nobody does."""
        if topic == "/tf_static":
            self._latched.setdefault(topic, []).append(message)
        wanted = [s for s in self.subscriptions if s.topic_name == topic]
        for subscription in wanted:
            subscription.callback(message)
        return bool(wanted)


@dataclass(eq=False)
class Subscription:
    """A subscription of the node."""

    topic_name: str
    callback: Callable[[Any], None]

    def get_publisher_count(self) -> int:
        """The robot publishes it."""
        return 1


class _Publisher:
    def __init__(self, wire: Wire, topic: str) -> None:
        self._wire, self.topic_name, self.topic = wire, topic, topic

    def publish(self, message: Any) -> None:
        serialize_message(message)
        self._wire.heard(self.topic_name, message)
        if any(subscription.topic_name == self.topic_name for subscription in self._wire.subscriptions):
            # A node hears itself.
            simulation = self._wire.simulation
            simulation.at(simulation.now_ns, partial(self._wire.deliver, self.topic_name, message))

    def get_subscription_count(self) -> int:
        return 0 if self.topic_name.endswith(_FOR_EYES) else 1


class _LifecyclePublisher(_Publisher):
    """Silent while the node is not active; told so as rclpy tells its own."""

    def __init__(self, wire: Wire, topic: str) -> None:
        super().__init__(wire, topic)
        self._active = False

    def publish(self, message: Any) -> None:
        if self._active:
            super().publish(message)

    def on_activate(self, state: Any) -> Any:
        self._active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> Any:
        self._active = False
        return TransitionCallbackReturn.SUCCESS

    on_configure = on_cleanup = on_shutdown = on_error = on_deactivate


class _Timer:
    """Runs a callback again and again until it is cancelled."""

    def __init__(self, simulation: Simulation, period_s: float, callback: Callable[[], None]) -> None:
        self._simulation, self._period_ns, self._callback = simulation, round(period_s * 1e9), callback
        self.cancelled = False
        self._plan()

    def cancel(self) -> None:
        self.cancelled = True

    def _plan(self) -> None:
        self._simulation.at(self._simulation.now_ns + self._period_ns, self._run)

    def _run(self) -> None:
        if not self.cancelled:
            self._callback()
            self._plan()


class _Logger:
    """Keeps every line, however often it comes."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _keep(self, level: str, text: str) -> None:
        self._wire.log.append((self._wire.simulation.now_ns, level, text))

    def debug(self, text: str, **options: Any) -> None:
        self._keep("debug", text)

    def info(self, text: str, **options: Any) -> None:
        self._keep("info", text)

    def warning(self, text: str, **options: Any) -> None:
        self._keep("warning", text)

    warn = warning

    def error(self, text: str, **options: Any) -> None:
        self._keep("error", text)

    def fatal(self, text: str, **options: Any) -> None:
        self._keep("fatal", text)


class SimulatedNode(LocalizerNode):
    """The node on a wire.

    Args:
        wire: in place of the middleware.
        opener: see ``LocalizerNode``.
        arguments: see ``LocalizerNode``.
    """

    def __init__(self, wire: Wire, opener: Opener, machine: Machine, **arguments: Any) -> None:
        # Before anything else: the base classes create what they need through the methods below.
        self._wire = wire
        super().__init__(opener, machine, enable_rosout=False, start_parameter_services=False, **arguments)

    def get_logger(self) -> Any:
        return _Logger(self._wire)

    def create_publisher(self, kind: type, topic: str, *arguments: Any, **options: Any) -> Any:
        return _Publisher(self._wire, self._full(topic))

    def create_lifecycle_publisher(self, kind: type, topic: str, *arguments: Any, **options: Any) -> Any:
        publisher = _LifecyclePublisher(self._wire, self._full(topic))
        self._managed_entities.add(publisher)
        return publisher

    def create_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], *arguments: Any, **options: Any
    ) -> Any:
        subscription = self._wire.subscribe(self._full(topic), callback)
        matched = getattr(options.get("event_callbacks"), "matched", None)
        if matched is not None:
            found = SimpleNamespace(current_count=1, current_count_change=1, total_count=1)
            self._wire.simulation.at(self._wire.simulation.now_ns, lambda: matched(found))
        return subscription

    def create_service(
        self, kind: type, name: str, callback: Callable[[Any, Any], Any], **options: Any
    ) -> Any:
        full = self.resolve_service_name(name)
        self._wire.services[full] = callback
        return full

    def create_timer(self, period_s: float, callback: Callable[[], None], *given: Any, **options: Any) -> Any:
        return _Timer(self._wire.simulation, period_s, callback)

    def destroy_publisher(self, publisher: Any) -> bool:
        return True

    def destroy_lifecycle_publisher(self, publisher: Any) -> bool:
        self._managed_entities.discard(publisher)
        return True

    def destroy_subscription(self, subscription: Any) -> bool:
        if subscription in self._wire.subscriptions:
            self._wire.subscriptions.remove(subscription)
        return True

    def destroy_service(self, service: Any) -> bool:
        if isinstance(service, str):
            return self._wire.services.pop(service, None) is not None
        return bool(super().destroy_service(service))

    def destroy_timer(self, timer: Any) -> bool:
        timer.cancel()
        return True

    def get_publishers_info_by_topic(self, topic: str, no_mangle: bool = False) -> list[Any]:
        return []

    def get_subscriptions_info_by_topic(self, topic: str, no_mangle: bool = False) -> list[Any]:
        return []

    def _full(self, topic: str) -> str:
        return str(self.resolve_topic_name(topic))

    @property
    def subscriptions(self) -> Iterator[Any]:
        yield from self._wire.subscriptions
