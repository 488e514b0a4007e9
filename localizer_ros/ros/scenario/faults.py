"""Faults applied to the packets of a scenario."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from sensor_msgs.msg import CompressedImage

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import UInt8
from localizer_ros.ros.scenario.fault_kinds import FAULTS
from localizer_ros.ros.scenario.packets import SECOND_NS, Packet, Timeline
from localizer_ros.ros.scenario.pictures import CHANGES
from localizer_ros.ros.scenario.schema import Fault, Scenario

Apply: TypeAlias = Callable[[list[Packet], Fault, float, Timeline], list[Packet]]
NOWHERE = "nowhere"
FOREIGN_PERIOD_NS = 50_000_000
_NAN = float("nan")


def apply_faults(timeline: Timeline, scenario: Scenario) -> None:
    """Change a timeline by the faults of a scenario, in their order; those of the drive are in it already."""
    for fault in scenario.faults:
        if fault.stream == "drive":
            continue
        from_ns = round(fault.from_s * SECOND_NS)
        to_ns = timeline.end_ns if fault.to_s is None else round(fault.to_s * SECOND_NS)
        kind = FAULTS[fault.fault]
        value = kind.default if fault.value is None else fault.value
        if fault.stream in ("initialpose", "call", "processing", "clock") or fault.fault in (
            "foreign",
            "moved",
        ):
            timeline.packets += _made(fault, value, from_ns, to_ns, timeline)
            continue
        streams = ("odom", "tf") if fault.stream == "odom" else (fault.stream,)
        for stream in streams:
            if stream == "tf" and fault.fault == "covariance":
                continue
            inside = [p for p in timeline.packets if _is_hit(p, stream, from_ns, to_ns)]
            hit = set(map(id, inside))
            timeline.packets = [p for p in timeline.packets if id(p) not in hit]
            timeline.packets += _APPLY[fault.fault](sorted(inside, key=_time), fault, value, timeline)
    timeline.packets.sort(key=_time)


def _is_hit(packet: Packet, stream: str, from_ns: int, to_ns: int) -> bool:
    # What the robot says once, before the first image, is said at time 0.
    return packet.stream == stream and from_ns <= max(0, packet.at_ns) < to_ns


def _time(packet: Packet) -> int:
    return packet.at_ns


# --- messages ---


def _drop(inside: list[Packet], fault: Fault, share: float, timeline: Timeline) -> list[Packet]:
    kept = np.random.default_rng(1).random(len(inside)) >= share
    return [packet for packet, keep in zip(inside, kept, strict=True) if keep]


def _late(inside: list[Packet], fault: Fault, delay_s: float, timeline: Timeline) -> list[Packet]:
    return [replace(packet, at_ns=packet.at_ns + round(delay_s * SECOND_NS)) for packet in inside]


def _burst(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    end_ns = timeline.end_ns if fault.to_s is None else round(fault.to_s * SECOND_NS)
    return [replace(packet, at_ns=end_ns) for packet in inside]


def _shuffle(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    shuffled = []
    for first in range(0, len(inside), 3):
        three = inside[first : first + 3]
        shuffled += [replace(p, at_ns=q.at_ns) for p, q in zip(three, reversed(three), strict=True)]
    return shuffled


def _duplicate(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    return [*inside, *(replace(packet, at_ns=packet.at_ns + SECOND_NS // 500) for packet in inside)]


def _stamp(inside: list[Packet], fault: Fault, shift_s: float, timeline: Timeline) -> list[Packet]:
    return [replace(packet, stamp_ns=packet.stamp_ns + round(shift_s * SECOND_NS)) for packet in inside]


def _stamp_zero(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    return [replace(packet, stamp_ns=0) for packet in inside]


def _stamp_stands(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    return [replace(packet, stamp_ns=inside[0].stamp_ns) for packet in inside]


def _freeze(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    return [replace(packet, number=inside[0].number) for packet in inside]


def _pixels(name: str) -> Apply:
    def apply(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
        def change(number: int, image: UInt8) -> UInt8:
            return CHANGES[name](image, value, number)

        return [
            replace(packet, changes=(*packet.changes, partial(change, packet.number))) for packet in inside
        ]

    return apply


# --- edits of messages ---


def _edited(edit: Callable[[Any, float], None]) -> Apply:
    def apply(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
        return [replace(p, edits=(*p.edits, lambda message: edit(message, value))) for p in inside]

    return apply


def _set_frame_id(name: str) -> Callable[[Any, float], None]:
    def edit(message: Any, value: float) -> None:
        for part in getattr(message, "transforms", [message]):
            part.header.frame_id = name
            if hasattr(part, "child_frame_id"):
                part.child_frame_id = name and f"{name}_else"

    return edit


def _nan(message: Any, value: float) -> None:
    if hasattr(message, "k"):
        message.k = [_NAN] * 9
    elif hasattr(message, "transforms"):
        for part in message.transforms:
            part.transform.translation.x = _NAN
    else:
        message.pose.pose.position.x = _NAN


def _truncate(message: Any, share: float) -> None:
    message.data = array("B", message.data[: int(share * len(message.data))])


def _encoding(message: Any, value: float) -> None:
    if isinstance(message, CompressedImage):
        message.data = array("B", b"not a picture")
        message.format = NOWHERE
    else:
        message.encoding = NOWHERE


def _info_size(message: Any, factor: float) -> None:
    message.width, message.height = round(factor * message.width), round(factor * message.height)


def _focal(message: Any, factor: float) -> None:
    message.k = [v * factor if i in (0, 4) else v for i, v in enumerate(message.k)]
    message.p = [v * factor if i in (0, 5) else v for i, v in enumerate(message.p)]


def _uncalibrated(message: Any, value: float) -> None:
    message.k, message.p, message.d, message.distortion_model = [0.0] * 9, [0.0] * 12, [], ""


def _negative(message: Any, value: float) -> None:
    message.pose.covariance = [-1.0] * 36


def _size(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
    apply = _pixels("size") if fault.stream == "image" else _edited(_info_size)
    return apply(inside, fault, value, timeline)


# --- poses ---


def _aside(metres: float) -> SE3:
    """To the left of whatever has x ahead."""
    return SE3(np.eye(3), np.array([0.0, metres, 0.0]))


def _poses(change: Callable[[list[SE3], float], list[SE3]]) -> Apply:
    def apply(inside: list[Packet], fault: Fault, value: float, timeline: Timeline) -> list[Packet]:
        poses = [packet.T for packet in inside if packet.T is not None]
        return [replace(p, T=T) for p, T in zip(inside, change(poses, value), strict=True)]

    return apply


def _drifting(poses: list[SE3], share: float) -> list[SE3]:
    drifted = poses[:1]
    for before, after in pairwise(poses):
        step = before.inverse() @ after
        drifted.append(drifted[-1] @ SE3(step.R, step.t * (1.0 + share)))
    return drifted


# --- what is no change of the recording ---


def _made(fault: Fault, value: float, from_ns: int, to_ns: int, timeline: Timeline) -> list[Packet]:
    if fault.stream == "clock":
        timeline.clock_jumps.append((from_ns, -round(value * SECOND_NS)))
        return []
    stamp_ns = timeline.clock_ns(from_ns)
    if fault.stream == "processing":
        begin = Packet("processing", from_ns, stamp_ns, fault=replace_value(fault, value))
        end = Packet("processing", to_ns, stamp_ns, fault=replace_value(fault, None))
        return [begin, end]
    if fault.stream == "call":
        return [Packet("call", from_ns, stamp_ns, fault=fault)]
    if fault.fault == "moved":
        known = [p.T for p in timeline.packets if p.stream == "tf_static" and p.T is not None]
        return [Packet("tf_static", from_ns, stamp_ns, T=_aside(value) @ T) for T in known[:1]]
    if fault.fault == "foreign":
        return [
            Packet("foreign", at_ns, timeline.clock_ns(at_ns), T=_aside(5.0), fault=fault)
            for at_ns in range(from_ns, to_ns, FOREIGN_PERIOD_NS)
        ]
    images = [p for p in timeline.packets if p.stream == "image" and p.T_map_base is not None]
    if not images:
        return []
    nearest = min(images, key=lambda packet: abs(packet.at_ns - from_ns))
    assert nearest.T_map_base is not None
    T = nearest.T_map_base @ _aside(value)
    edits: tuple[Callable[[Any], None], ...] = ()
    if fault.fault == "pose_nan":
        edits = (lambda message: _nan(message, 0.0),)
    elif fault.fault == "pose_elsewhere":
        edits = (lambda message: _set_frame_id(NOWHERE)(message, 0.0),)
    elif fault.fault == "pose":
        # As RViz gives it: half a metre and 15 degrees.
        covariance = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, np.radians(15.0) ** 2]).reshape(-1).tolist()
        edits = (lambda message: setattr(message.pose, "covariance", covariance),)
    return [Packet("initialpose", from_ns, stamp_ns, T=T, T_map_base=nearest.T_map_base, edits=edits)]


def replace_value(fault: Fault, value: float | None) -> Fault:
    """The fault with another value."""
    return Fault(stream=fault.stream, fault=fault.fault, from_s=fault.from_s, to_s=fault.to_s, value=value)


_APPLY: dict[str, Apply] = {
    "drop": _drop,
    "late": _late,
    "burst": _burst,
    "shuffle": _shuffle,
    "duplicate": _duplicate,
    "stamp": _stamp,
    "stamp_zero": _stamp_zero,
    "stamp_stands": _stamp_stands,
    "frame_id": _edited(_set_frame_id(NOWHERE)),
    "frame_id_empty": _edited(_set_frame_id("")),
    "nan": _edited(_nan),
    "freeze": _freeze,
    **{name: _pixels(name) for name in CHANGES},
    "size": _size,
    "truncate": _edited(_truncate),
    "encoding": _edited(_encoding),
    "focal": _edited(_focal),
    "uncalibrated": _edited(_uncalibrated),
    "impossible": _edited(lambda message, value: _focal(message, -1.0)),
    "jump": _poses(lambda poses, metres: [_aside(metres) @ T for T in poses]),
    "restart": _poses(lambda poses, value: [poses[0].inverse() @ T for T in poses]),
    "drift": _poses(_drifting),
    "still": _poses(lambda poses, value: poses[:1] * len(poses)),
    "covariance": _edited(_negative),
}
