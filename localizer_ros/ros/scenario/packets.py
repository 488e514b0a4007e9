"""What a robot's streams carry in a scenario, before anything is a message: made of a recording, changed by faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import ConfigError, UInt8
from localizer_ros.datasets.source import FrameNames, FrameSource, frame_names
from localizer_ros.ros.scenario.schema import Fault, Scenario

SECOND_NS = 1_000_000_000
# The robot is switched on this long before the first image.
LEAD_NS = 300_000_000
# From the time of a measurement until its message is there.
IMAGE_TAKES_NS, INFO_TAKES_NS, ODOMETRY_TAKES_NS = 10_000_000, 9_000_000, 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """A message to be.

    Attributes:
        stream: a key of ``STREAMS``; the transform of the odometry is ``tf``.
        at_ns: when it arrives, nanoseconds of the scenario.
        stamp_ns: of its header, by the robot's clock.
        number: of the frame in the recording, for images.
        T: the pose that it carries, for odometry, transforms and initial poses.
        T_map_base: where the robot is when it is sent; None where nobody knows.
        fault: what made it; None for what the recording has.
        changes: of the pixels, in order.
        edits: of the message, in order.
    """

    stream: str
    at_ns: int
    stamp_ns: int
    number: int = -1
    T: SE3 | None = None
    T_map_base: SE3 | None = None
    fault: Fault | None = None
    changes: tuple[Callable[[UInt8], UInt8], ...] = ()
    edits: tuple[Callable[[Any], None], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Robot:
    """What the recording is of.

    Attributes:
        names: of the frames.
        T_base_cam: the camera on the robot; None where it is not known, and the camera's own pose is asked for.
        odometry: None where there is none.
    """

    names: FrameNames
    T_base_cam: SE3 | None
    odometry: Trajectory | None

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of the node that follow from it."""
        if self.T_base_cam is None:
            return {}
        base = {"base_frame": self.names.base}
        return base if self.odometry is None else {**base, "odom_frame": self.names.odom}

    def T_map_base(self, T_map_cam: SE3 | None) -> SE3 | None:
        """The robot where the camera is; the camera itself where its place on the robot is not known."""
        if T_map_cam is None or self.T_base_cam is None:
            return T_map_cam
        return T_map_cam @ self.T_base_cam.inverse()


@dataclass(slots=True, eq=False)
class Timeline:
    """All that happens.

    Attributes:
        robot: whose streams these are.
        begin_ns: stamp of the first image: the robot's clock at time 0 of the scenario.
        end_ns: time of the scenario at which it ends.
        packets: in any order.
        clock_jumps: times of the scenario, and what is added to the clock from then on.
    """

    robot: Robot
    begin_ns: int
    end_ns: int
    packets: list[Packet] = field(default_factory=list)
    clock_jumps: list[tuple[int, int]] = field(default_factory=list)

    def clock_ns(self, at_ns: int) -> int:
        """The robot's clock at a time of the scenario."""
        return self.begin_ns + at_ns + sum(jump for since, jump in self.clock_jumps if since <= at_ns)


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """A part of the recording that is played without a break.

    Attributes:
        at_ns: time of the scenario at which it begins.
        until_ns: and ends.
        recorded_ns: stamp of the recording at its beginning.
        stamp_ns: stamp that is given to that.
        T_link: set before the recorded odometry.
    """

    at_ns: int
    until_ns: int
    recorded_ns: int
    stamp_ns: int
    T_link: SE3


def recorded(source: FrameSource, scenario: Scenario) -> Timeline:
    """The streams of a recording, with what happens to the drive itself.

    Raises:
        ConfigError: the recording has no frames at the scenario's time.
    """
    names = frame_names(source)
    odometry = source.odometry if scenario.odometry else None
    robot = Robot(names, source.T_base_cam, odometry)
    first_ns = source.records[0].stamp_ns + round(scenario.start * SECOND_NS)
    length_ns = source.records[-1].stamp_ns - first_ns + 1
    if scenario.duration is not None:
        length_ns = min(length_ns, round(scenario.duration * SECOND_NS))
    stamps = [r.stamp_ns for r in source.records if first_ns <= r.stamp_ns < first_ns + length_ns]
    if len(stamps) < 2:
        whole_s = (source.records[-1].stamp_ns - source.records[0].stamp_ns) / SECOND_NS
        raise ConfigError(f"{source.path}: no frames after {scenario.start:g} s; it has {whole_s:.1f} s")
    timeline = Timeline(robot, stamps[0], length_ns + LEAD_NS)
    for stretch in _stretches(scenario, stamps[0], length_ns, odometry, timeline):
        timeline.packets += _frames(source, robot, stretch)
        if odometry is not None:
            timeline.packets += _odometry(odometry, stretch)
    timeline.end_ns = max(packet.at_ns for packet in timeline.packets) + LEAD_NS
    if robot.T_base_cam is not None:
        at_ns = LEAD_NS // 3 - LEAD_NS
        timeline.packets.append(Packet("tf_static", at_ns, timeline.clock_ns(at_ns), T=robot.T_base_cam))
    return timeline


def _stretches(
    scenario: Scenario, first_ns: int, length_ns: int, odometry: Trajectory | None, timeline: Timeline
) -> list[_Stretch]:
    cuts = sorted((fault for fault in scenario.faults if fault.stream == "drive"), key=lambda f: f.from_s)
    stretches = [_Stretch(0, length_ns, first_ns, first_ns, SE3.identity())]
    for fault in cuts:
        last = stretches[-1]
        at_ns = round(fault.from_s * SECOND_NS)
        ran_ns = at_ns - last.at_ns
        stretches[-1] = _Stretch(last.at_ns, at_ns, last.recorded_ns, last.stamp_ns, last.T_link)
        if fault.fault == "loop":
            timeline.clock_jumps.append((at_ns, first_ns - last.stamp_ns - ran_ns))
            stretches.append(_Stretch(at_ns, length_ns, first_ns, first_ns, SE3.identity()))
            continue
        value = 2.0 if fault.value is None else fault.value
        recorded_ns = last.recorded_ns + ran_ns
        there_ns = recorded_ns + round(value * SECOND_NS)
        T_link = last.T_link
        if odometry is not None:
            # It was carried, which its wheels have not seen.
            before, after = odometry.at(recorded_ns), odometry.at(there_ns)
            if before is not None and after is not None:
                T_link = last.T_link @ before @ after.inverse()
        stretches.append(_Stretch(at_ns, length_ns, there_ns, last.stamp_ns + ran_ns, T_link))
    return stretches


def _frames(source: FrameSource, robot: Robot, stretch: _Stretch) -> list[Packet]:
    packets = []
    for number, record in enumerate(source.records):
        after_ns = record.stamp_ns - stretch.recorded_ns
        if not 0 <= after_ns < stretch.until_ns - stretch.at_ns:
            continue
        at_ns, stamp_ns = stretch.at_ns + after_ns, stretch.stamp_ns + after_ns
        T_map_base = robot.T_map_base(record.T_map_cam)
        for stream, takes_ns in (("camera_info", INFO_TAKES_NS), ("image", IMAGE_TAKES_NS)):
            packets.append(Packet(stream, at_ns + takes_ns, stamp_ns, number, T_map_base=T_map_base))
    return packets


def _odometry(odometry: Trajectory, stretch: _Stretch) -> list[Packet]:
    packets = []
    # It has been on for a while when the first image comes.
    lead_ns = LEAD_NS // 2 if stretch.at_ns == 0 else 0
    for recorded_ns, T_odom_base in zip(odometry.stamps_ns.tolist(), odometry.poses, strict=True):
        after_ns = recorded_ns - stretch.recorded_ns
        if not -lead_ns <= after_ns < stretch.until_ns - stretch.at_ns:
            continue
        at_ns, stamp_ns = stretch.at_ns + after_ns + ODOMETRY_TAKES_NS, stretch.stamp_ns + after_ns
        for stream in ("tf", "odom"):
            packets.append(Packet(stream, at_ns, stamp_ns, T=stretch.T_link @ T_odom_base))
    return packets
