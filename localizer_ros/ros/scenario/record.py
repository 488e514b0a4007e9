"""What the node said and published in a scenario, and what was true meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from localizer_ros.core.se3 import SE3, covariance_from_ros
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array
from localizer_ros.ros import conversions as convert
from localizer_ros.ros.scenario.packets import Packet

NODE = "/localizer"
HEARD_TOPICS = (f"{NODE}/pose", f"{NODE}/pose_with_covariance", "/tf", "/diagnostics")
LEVELS = {level: name for name, level in convert.LEVELS.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A pose of the robot that was published.

    Attributes:
        topic: where.
        at_ns: when, nanoseconds of the scenario.
        stamp_ns: of its image.
        T_map_base: the pose.
        covariance: in the tangent of the pose; None where the message has none.
    """

    topic: str
    at_ns: int
    stamp_ns: int
    T_map_base: SE3
    covariance: Array | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A status of the diagnostics.

    Attributes:
        at_ns: when, nanoseconds of the scenario.
        level: ``OK``, ``WARN``, ``ERROR`` or ``STALE``.
        text: the message.
        values: the details.
    """

    at_ns: int
    level: str
    text: str
    values: dict[str, str]

    @property
    def lost(self) -> bool:
        """The node says that it does not know where it is."""
        return self.level != "OK" and self.values.get("status") in ("LOST", "INITIALIZING")


@dataclass(slots=True, eq=False)
class Record:
    """All of it.

    Attributes:
        map_frame: parent of all poses.
        answers: poses, in order of time.
        transforms: of ``map``: time, stamp, child, pose.
        said: diagnostics, in order of time.
        images: packets that were sent.
        rivals: transforms of ``map`` that the robot sent itself, as another localizer.
        odometry: samples of the odometry's transform that were sent, stamp and pose.
        crashes: what must never happen: errors nobody foresaw, with their time.
        calls: what was called, its time, and what was answered.
        state: of the lifecycle at the end; empty when the node was not there any more.
    """

    map_frame: str
    answers: list[Answer] = field(default_factory=list)
    transforms: list[tuple[int, int, str, SE3]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    images: list[Packet] = field(default_factory=list)
    rivals: set[tuple[int, float]] = field(default_factory=set)
    odometry: dict[int, SE3] = field(default_factory=dict)
    crashes: list[tuple[int, str]] = field(default_factory=list)
    calls: list[tuple[int, str, bool]] = field(default_factory=list)
    state: str = ""

    def sent(self, packet: Packet) -> None:
        """A packet went out to the node."""
        if packet.stream == "image":
            self.images.append(packet)
        elif packet.stream == "foreign" and packet.T is not None:
            self.rivals.add((packet.stamp_ns, float(packet.T.t[1])))
        elif packet.stream == "tf" and packet.T is not None:
            self.odometry[packet.stamp_ns] = packet.T

    def hear(self, at_ns: int, topic: str, message: Any) -> None:
        """The node published something."""
        if topic == "/diagnostics":
            for status in message.status:
                if "localiz" in status.name:
                    values = {value.key: value.value for value in status.values}
                    self.said.append(Said(at_ns, LEVELS[status.level], status.message, values))
        elif topic == "/tf":
            for part in message.transforms:
                if part.header.frame_id.lstrip("/") == self.map_frame:
                    stamp_ns = convert.stamp_ns(part.header.stamp)
                    T = convert.transform_from_msg(part)
                    if (stamp_ns, float(T.t[1])) not in self.rivals:
                        self.transforms.append((at_ns, stamp_ns, part.child_frame_id, T))
        elif topic == f"{NODE}/pose":
            T = convert.pose_from_msg(message.pose)
            self.answers.append(Answer("pose", at_ns, convert.stamp_ns(message.header.stamp), T))
        elif topic == f"{NODE}/pose_with_covariance":
            T = convert.pose_from_msg(message.pose.pose)
            S = covariance_from_ros(T, _matrix(message.pose.covariance))
            stamp_ns = convert.stamp_ns(message.header.stamp)
            self.answers.append(Answer("pose_with_covariance", at_ns, stamp_ns, T, S))

    def in_force(self, at_ns: int) -> Said | None:
        """The newest status at a time; None before the first."""
        past = [said for said in self.said if said.at_ns <= at_ns]
        return past[-1] if past else None

    def robot_by_transforms(self, odom_frame: str) -> list[Answer]:
        """Where the robot is for those who follow the transforms: ``map -> odom`` with the odometry of its stamp."""
        trajectory = Trajectory.from_items(sorted(self.odometry.items())) if self.odometry else None
        answers = []
        for at_ns, stamp_ns, child, T_map_child in self.transforms:
            T_child_base = SE3.identity()
            if odom_frame:
                known = trajectory.at(stamp_ns) if trajectory is not None else None
                if child != odom_frame or known is None:
                    continue
                T_child_base = known
            answers.append(Answer("tf", at_ns, stamp_ns, T_map_child @ T_child_base))
        return answers


def _matrix(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(6, 6)
