"""A scenario played over DDS, in real time, to a node in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.dds_profile import use_shared_memory_profile
from localizer_ros.ros.scenario.faults import apply_faults
from localizer_ros.ros.scenario.messages import KINDS, Messages, Pictures
from localizer_ros.ros.scenario.packets import LEAD_NS, SECOND_NS, Packet, Timeline, recorded
from localizer_ros.ros.scenario.record import HEARD_TOPICS, NODE, Record
from localizer_ros.ros.scenario.schema import Scenario
from localizer_ros.ros.transform_listener import TF_QOS, TF_STATIC_QOS
from localizer_ros.scene.bundle import Scene

_START_TIMEOUT_S, _CALL_TIMEOUT_S, _END_TIMEOUT_S = 60.0, 5.0, 5.0
# Both ends know of each other, not in the same instant.
_SETTLE_S = 0.3
_CLOCK_PERIOD_S = 0.01
_HEARD_KINDS = dict(
    zip(HEARD_TOPICS, (PoseStamped, PoseWithCovarianceStamped, TFMessage, DiagnosticArray), strict=True)
)
_PAUSE = {"pause": True, "resume": False}
_TRIGGERS = ("relocalize", "reset")


class Live:
    """Plays scenarios of one scene and one recording, each to a new process of the node.

    Args:
        scene: folder of the scene.
        source: the recording.
    """

    def __init__(self, scene: Path, source: FrameSource) -> None:
        self._scene, self._source = scene.resolve(), source
        self._map_frame = Scene.load(scene).map_frame
        self._pictures = Pictures(source)
        use_shared_memory_profile()

    def close(self) -> None:
        """Nothing stays open."""

    def play(self, scenario: Scenario) -> tuple[Record, Timeline]:
        """What came of a scenario. Raises ConfigError when the node does not start."""
        with self.started(scenario) as (robot, process, record):
            robot.play(process)
        return record, robot.timeline

    @contextlib.contextmanager
    def started(self, scenario: Scenario) -> Iterator[tuple[LiveRobot, subprocess.Popen[str], Record]]:
        """The node's process, the robot beside it, and what it hears; the process ends at the end."""
        timeline = recorded(self._source, scenario)
        apply_faults(timeline, scenario)
        for number in sorted({p.number for p in timeline.packets if p.stream == "image"}):
            # A recording that is rendered or decoded while it is played would shake the rhythm.
            self._pictures[number]
        names = timeline.robot.names
        messages = Messages(self._source, self._pictures, names, self._map_frame, scenario.transport)
        record = Record(self._map_frame)
        with (
            _process(self._scene, scenario, timeline, record) as process,
            _node() as node,
        ):
            yield LiveRobot(node, scenario, timeline, messages, record), process, record


@contextlib.contextmanager
def _process(
    scene: Path, scenario: Scenario, timeline: Timeline, record: Record
) -> Iterator[subprocess.Popen[str]]:
    """The node's process; what it prints of unexpected errors goes into the record."""
    given = {
        "scene": str(scene),
        "use_sim_time": True,
        "image_transport": "raw" if scenario.transport == "raw" else "compressed",
        **timeline.robot.parameters,
        **scenario.parameters,
    }
    command = [sys.executable, "-m", "localizer_ros.ros.main", "--ros-args"]
    for name, value in given.items():
        # Quoted as YAML, which is how ROS reads parameters.
        text = str(value).lower() if isinstance(value, bool) else value
        quoted = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else text
        command += ["-p", f"{name}:={quoted}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            record.crashes.append((timeline.end_ns, f"it did not end within {_END_TIMEOUT_S:g} s"))
            process.kill()
            process.wait()
        reader.join(_END_TIMEOUT_S)
        if any("Traceback" in line for line in lines):
            record.crashes.append((timeline.end_ns, "".join(lines[-40:])))
        if process.returncode:
            record.crashes.append((timeline.end_ns, f"exit code {process.returncode}: {''.join(lines[-3:])}"))
            record.state = ""


@contextlib.contextmanager
def _node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("robot", context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name="robot", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join(_END_TIMEOUT_S)
        node.destroy_node()
        rclpy.try_shutdown(context=context)


class LiveRobot:
    """Plays the robot to a live node, and listens.

    Args:
        node: to play it with.
        scenario: that is played.
        timeline: of it.
        messages: makes messages of packets.
        record: takes what is heard.
    """

    def __init__(
        self, node: Node, scenario: Scenario, timeline: Timeline, messages: Messages, record: Record
    ) -> None:
        self._node, self._scenario, self.timeline, self._record = node, scenario, timeline, record
        self._ready = [(packet, messages.of(packet)) for packet in timeline.packets]
        self._publishers = {topic: self._publisher(topic, kind) for topic, kind in self._sent().items()}
        self._clock = node.create_publisher(Clock, "/clock", 10)
        # What is heard before it begins was long ago.
        self._began_s = time.monotonic() + _START_TIMEOUT_S
        self._lock = threading.Lock()
        for topic, kind in _HEARD_KINDS.items():
            node.create_subscription(kind, topic, partial(self._on_heard, topic), QoSProfile(depth=100))

    def _sent(self) -> dict[str, type]:
        kinds = dict(KINDS)
        if self._scenario.transport != "raw":
            kinds["image/compressed"] = CompressedImage
            del kinds["image"]
        return kinds

    def _publisher(self, topic: str, kind: type) -> Any:
        qos = {"/tf": TF_QOS, "/tf_static": TF_STATIC_QOS}.get(topic, QoSProfile(depth=10))
        return self._node.create_publisher(kind, topic, qos)

    def play(self, process: subprocess.Popen[str]) -> None:
        """All packets at their times, once the node is active; then the state it is in."""
        self._tick(-LEAD_NS)
        self._until_active(process)
        self._begin()
        for packet, made in self._ready:
            self._sleep_until(packet.at_ns)
            if process.poll() is not None:
                return
            self._send(packet, made)
        self._sleep_until(self.timeline.end_ns)
        if process.poll() is None:
            with contextlib.suppress(TimeoutError):
                self._record.state = self.state()

    def state(self) -> str:
        """Of the node's lifecycle. Raises TimeoutError when it does not answer."""
        return str(self._call(GetState, "get_state", GetState.Request()).current_state.label)

    def change(self, label: str) -> bool:
        """Ask for a transition. Raises TimeoutError when that is not answered."""
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self._call(ChangeState, "change_state", request).success)

    def _begin(self) -> None:
        self._began_s = time.monotonic() + LEAD_NS / SECOND_NS

    def _send(self, packet: Packet, made: tuple[str, Any] | None) -> None:
        if packet.stream == "call":
            assert packet.fault is not None and packet.fault.text is not None
            # The robot's streams do not wait for somebody's call.
            threading.Thread(target=self._command, args=(packet, packet.fault.text), daemon=True).start()
        elif made is not None:
            topic, message = made
            with self._lock:
                self._record.sent(packet)
            self._publishers[topic].publish(message)

    def _command(self, packet: Packet, name: str) -> None:
        answered = False
        with contextlib.suppress(TimeoutError):
            if name in _PAUSE:
                request: Any = SetBool.Request(data=_PAUSE[name])
                answered = bool(self._call(SetBool, "pause", request).success)
            elif name in _TRIGGERS:
                answered = bool(self._call(Trigger, name, Trigger.Request()).success)
            else:
                answered = self.change(name)
        with self._lock:
            self._record.calls.append((packet.at_ns, name, answered))

    def _call(self, kind: type, name: str, request: Any) -> Any:
        client = self._node.create_client(kind, f"{NODE}/{name}")
        try:
            if not client.wait_for_service(_CALL_TIMEOUT_S):
                raise TimeoutError(name)
            done = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: done.set())
            if not done.wait(_CALL_TIMEOUT_S):
                raise TimeoutError(name)
            return future.result()
        finally:
            self._node.destroy_client(client)

    def _until_active(self, process: subprocess.Popen[str]) -> None:
        """Wait until the node is active and hears everything that it will need."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        wanted = [
            self._publishers[topic] for topic in self._publishers if topic.startswith(("image", "camera"))
        ]
        while not all(publisher.get_subscription_count() for publisher in wanted):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise ConfigError("the node did not become active")
            time.sleep(0.02)
        time.sleep(_SETTLE_S)

    def _sleep_until(self, at_ns: int) -> None:
        while (left_s := self._began_s + at_ns / SECOND_NS - time.monotonic()) > 0.0:
            self._tick(self._now_ns())
            time.sleep(min(left_s, _CLOCK_PERIOD_S))
        self._tick(max(at_ns, self._now_ns()))

    def _now_ns(self) -> int:
        return round((time.monotonic() - self._began_s) * SECOND_NS)

    def _tick(self, at_ns: int) -> None:
        self._clock.publish(Clock(clock=convert.stamp_msg(self.timeline.clock_ns(at_ns))))

    def _on_heard(self, topic: str, message: Any) -> None:
        with self._lock:
            self._record.hear(self._now_ns(), topic, message)
