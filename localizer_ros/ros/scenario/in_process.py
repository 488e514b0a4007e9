"""A scenario played to the node in this process, in simulated time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Coroutine, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger

from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.types import Frame, LocalizerOutput
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.machine import Machine
from localizer_ros.ros.online_localizer import OnlineLocalizer, OpenedScene, open_for_node
from localizer_ros.ros.scenario.faults import apply_faults
from localizer_ros.ros.scenario.messages import Messages, Pictures
from localizer_ros.ros.scenario.packets import LEAD_NS, Packet, Timeline, recorded
from localizer_ros.ros.scenario.record import HEARD_TOPICS, Record
from localizer_ros.ros.scenario.schema import Scenario
from localizer_ros.ros.scenario.simulated_node import SimulatedNode, Wire
from localizer_ros.ros.scenario.simulation import Simulation, SteppedWorker
from localizer_ros.scene.bundle import Scene

# Services whose request is more than a trigger.
_PAUSE = {"pause": True, "resume": False}
_TRIGGERS = ("relocalize", "reset")


class InProcess:
    """Plays scenarios of one scene and one recording, one after the other.

    Args:
        scene: folder of the scene.
        source: the recording.
    """

    def __init__(self, scene: Path, source: FrameSource) -> None:
        self._scene, self._source = scene, source
        self.map_frame = Scene.load(scene).map_frame
        self._pictures = Pictures(source)
        # Opened once for all scenarios of the same settings; each begins with a reset.
        self._localizers: dict[str, OnlineLocalizer] = {}

    def close(self) -> None:
        """Close what was opened."""
        for localizer in self._localizers.values():
            localizer.close()
        self._localizers = {}

    def play(self, scenario: Scenario) -> tuple[Record, Timeline]:
        """What came of a scenario. Raises ConfigError for parameters that the node refuses."""
        timeline = recorded(self._source, scenario)
        apply_faults(timeline, scenario)
        with self.node(scenario, timeline) as play:
            play.feed(timeline.packets)
            play.run(timeline.end_ns)
        return play.record, timeline

    @contextlib.contextmanager
    def node(self, scenario: Scenario, timeline: Timeline) -> Iterator[Play]:
        """An active node, to be fed; destroyed at the end."""
        names = timeline.robot.names
        messages = Messages(self._source, self._pictures, names, self.map_frame, scenario.transport)
        play = Play(scenario, timeline, messages, self.map_frame)
        with _context() as context:
            play.start(context, self._scene, self._open)
            try:
                yield play
            finally:
                play.end()

    def _open(self, play: Play, path: Path, config: NodeConfig) -> OpenedScene:
        key = json.dumps(config_to_dict(config), sort_keys=True)
        if key not in self._localizers:
            self._localizers[key] = open_for_node(path, config, threaded=False)
        localizer = self._localizers[key]
        localizer.reset()
        return OpenedScene(_TimedLocalizer(localizer, play), self.map_frame)


@contextlib.contextmanager
def _context() -> Iterator[rclpy.Context]:
    """ROS without a network: what is simulated is nobody else's business."""
    name = "ROS_AUTOMATIC_DISCOVERY_RANGE"
    before, os.environ[name] = os.environ.get(name), "OFF"
    context = rclpy.Context()
    try:
        rclpy.init(args=[], context=context)
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    try:
        yield context
    finally:
        rclpy.try_shutdown(context=context)


class _TimedLocalizer:
    """A localizer that takes its time, in the simulation."""

    def __init__(self, localizer: OnlineLocalizer, play: Play) -> None:
        self._localizer, self._play = localizer, play

    def process(self, frame: Frame) -> LocalizerOutput:
        output = self._localizer.process(frame)
        self._play.simulation.sleep(self._play.processing_s)
        return output

    def close(self) -> None:
        """It stays open for the next scenario."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._localizer, name)


class Play:
    """A node in simulated time, and what is played to it.

    Args:
        scenario: parameters and the time that a frame takes.
        timeline: the robot, and its clock.
        messages: makes messages of packets.
        map_frame: frame of the poses.
    """

    def __init__(self, scenario: Scenario, timeline: Timeline, messages: Messages, map_frame: str) -> None:
        self._scenario, self._timeline, self._messages = scenario, timeline, messages
        self.record = Record(map_frame)
        self.processing_s = scenario.processing
        self.simulation = Simulation(-LEAD_NS)
        self.wire = Wire(self.simulation, self._on_published)
        self._node: SimulatedNode

    def start(self, context: rclpy.Context, scene: Path, open_scene: Any) -> None:
        """Configure and activate a node. Raises ConfigError for parameters that it refuses."""
        simulation = self.simulation
        given = {
            "scene": str(scene),
            "use_sim_time": True,
            "image_transport": "raw" if self._scenario.transport == "raw" else "compressed",
            **self._timeline.robot.parameters,
            **self._scenario.parameters,
        }
        self._node = SimulatedNode(
            self.wire,
            partial(open_scene, self),
            Machine(simulation.clock, partial(SteppedWorker, simulation), simulation.wait),
            context=context,
            cli_args=[],
            use_global_arguments=False,
            parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
        )
        simulation.on_time = self._tick
        self._tick(simulation.now_ns)
        for transition in ("configure", "activate"):
            if not self._change(transition):
                self.record.crashes.append((simulation.now_ns, f"{transition}: {self._node.failure}"))

    def feed(self, packets: Iterable[Packet]) -> None:
        """Plan packets."""
        for packet in packets:
            self.simulation.at(packet.at_ns, partial(self._send, packet), alone=packet.stream == "call")

    def run(self, until_ns: int) -> None:
        """Let everything happen that is due until a time of the scenario."""
        try:
            self.simulation.run(until_ns)
            self.record.state = str(self._node._state_machine.current_state[1])
        except Exception as error:
            # Here it would leave the executor.
            self.record.state = ""
            self.record.crashes.append((self.simulation.now_ns, f"the node would be down: {error!r}"))
        self.record.crashes += [(at, text) for at, level, text in self.wire.log if _is_crash(level, text)]
        self.wire.log.clear()

    def end(self) -> None:
        """Destroy the node."""
        self._node.destroy_node()

    def _tick(self, now_ns: int) -> None:
        self.wire.deliver("/clock", Clock(clock=convert.stamp_msg(self._timeline.clock_ns(now_ns))))

    def _on_published(self, topic: str, message: Any) -> None:
        if topic in HEARD_TOPICS:
            self.record.hear(self.simulation.now_ns, topic, message)

    def _send(self, packet: Packet) -> None:
        if packet.stream == "call":
            assert packet.fault is not None and packet.fault.text is not None
            self._call(packet.fault.text)
        elif packet.stream == "processing":
            assert packet.fault is not None
            value = packet.fault.value
            self.processing_s = self._scenario.processing if value is None else value
        elif (made := self._messages.of(packet)) is not None:
            topic, message = made
            self.record.sent(packet)
            self.wire.deliver(self._node.resolve_topic_name(topic), message)

    def _call(self, name: str) -> None:
        if name in _PAUSE:
            call = self.wire.services.get("/localizer/pause")
            response = SetBool.Response()
            request: Any = SetBool.Request(data=_PAUSE[name])
        elif name in _TRIGGERS:
            call = self.wire.services.get(f"/localizer/{name}")
            request, response = Trigger.Request(), Trigger.Response()
        else:
            self.record.calls.append((self.simulation.now_ns, name, self._change(name)))
            return
        answered = call is not None and bool(call(request, response).success)
        self.record.calls.append((self.simulation.now_ns, name, answered))

    def _change(self, label: str) -> bool:
        """A transition, as its service is asked for it."""
        service = next(s for s in self._node.services if s.srv_type is ChangeState)
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(_finished(service.callback(request, ChangeState.Response())).success)


def _finished(answer: Coroutine[Any, Any, Any]) -> Any:
    """What a callback that may wait answers; nothing is waited for where all threads take turns."""
    try:
        answer.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a transition waits for what does not come")


def _is_crash(level: str, text: str) -> bool:
    return level in ("error", "fatal") and "Traceback" in text
