"""Scenarios as data: what happens to a robot's streams, and what must be said and published. Knows nothing of ROS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from localizer_ros.core.files import read_yaml
from localizer_ros.core.types import ConfigError
from localizer_ros.core.words import did_you_mean
from localizer_ros.ros.scenario.fault_kinds import FAULTS, STREAMS

S = TypeVar("S", bound=msgspec.Struct)
Seconds = Annotated[float, Meta(ge=0.0, le=36_000.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what is read."""


class Fault(_Strict, frozen=True, rename={"from_s": "from", "to_s": "to"}):
    """What happens to a stream between two times of the scenario.

    Attributes:
        stream: a key of ``STREAMS``.
        fault: a key of ``FAULTS``.
        from_s: when it begins, seconds since the first image.
        to_s: when it ends; None lasts until the end. A fault that happens at once has none.
        value: how much, in the unit of the fault; None takes the fault's default.
        text: a word that some faults need.
    """

    stream: str
    fault: str
    from_s: Seconds = 0.0
    to_s: Seconds | None = None
    value: float | None = None
    text: str | None = None


class Saying(_Strict, frozen=True):
    """What diagnostics must say.

    Attributes:
        text: regular expression, found in the message of a status that is not OK; upper and lower case are one.
        after: seconds of the scenario from which it counts; None takes the beginning of the first fault.
        within: seconds after that.
    """

    text: str
    after: Seconds | None = None
    within: Seconds = 0.5


class Scenario(_Strict, frozen=True):
    """One trial of the node.

    Attributes:
        about: what happens and what is expected, in a sentence or two.
        live: it is tried over DDS, too, with the node in a process of its own.
        start: seconds into the recording at which the scenario begins.
        duration: seconds of the recording that are played; None plays all.
        transport: how images are sent.
        odometry: odometry and its transforms are played, where the recording has them.
        processing: seconds that the localizer takes for a frame; in-process only, live it takes what it takes.
        parameters: of the node, beside the scene, the clock and the frames of the recording.
        faults: what happens.
        says: what diagnostics must say; a text alone must be said within half a second of the first fault.
        worst_m: a published position may be wrong by more only where its own 3 sigma covers that.
        worst_deg: the same of the orientation.
        recovers: seconds after the last fault's end by which a right pose must be out; None where none is asked for.
        answers: share of the frames outside of the faults, and of the time to recover, that must be answered.
        answers_during: share of the frames in the faults that must be answered.
        silent: no pose may be published between the faults' ``from`` (and half a second more) and ``to``.
        fails: why the node is known not to stand it, yet; empty where it does.
    """

    about: Annotated[str, Meta(min_length=1)]
    live: bool = False
    start: Seconds = 0.0
    duration: Annotated[float, Meta(gt=0.0, le=36_000.0)] | None = None
    transport: Literal["raw", "jpeg", "png"] = "raw"
    odometry: bool = True
    processing: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.02
    parameters: dict[str, bool | int | float | str] = {}
    faults: tuple[Fault, ...] = ()
    says: str | tuple[Saying, ...] = ()
    worst_m: Annotated[float, Meta(gt=0.0)] = 0.5
    worst_deg: Annotated[float, Meta(gt=0.0)] = 10.0
    recovers: Annotated[float, Meta(gt=0.0)] | None = 1.0
    answers: Share = 0.8
    answers_during: Share = 0.0
    silent: bool = False
    fails: str = ""

    @property
    def first_s(self) -> float:
        """When the first fault begins; 0 without one."""
        return min((fault.from_s for fault in self.faults), default=0.0)

    @property
    def last_s(self) -> float | None:
        """When the last fault is over; None where one does not end, 0 without any."""
        ends = [end_of(fault) for fault in self.faults]
        return None if None in ends else max((end for end in ends if end is not None), default=0.0)

    @property
    def sayings(self) -> tuple[Saying, ...]:
        """What must be said."""
        return (Saying(text=self.says),) if isinstance(self.says, str) else self.says


def end_of(fault: Fault) -> float | None:
    """When a fault is over, None when never; one that happens at once is over at once."""
    return fault.from_s if FAULTS[fault.fault].at_once else fault.to_s


def load_scenarios(path: Path) -> dict[str, Scenario]:
    """The scenarios of a YAML file by their names.

    Raises:
        ConfigError: names the file, the scenario and the entry that is wrong.
    """
    values = read_yaml(path, ConfigError)
    unknown = set(values) - {"defaults", "scenarios"}
    if unknown:
        raise ConfigError(
            f"{path}: expected defaults and scenarios, got {', '.join(sorted(map(str, unknown)))}"
        )
    defaults, listed = values.get("defaults") or {}, values.get("scenarios")
    if not isinstance(defaults, dict):
        raise ConfigError(f"{path}: defaults: expected a mapping of a scenario's entries")
    if not isinstance(listed, dict) or not listed:
        raise ConfigError(f"{path}: scenarios: expected a mapping of names to scenarios")
    return {str(name): _scenario(f"{path}: {name}", defaults, entry) for name, entry in listed.items()}


def _scenario(where: str, defaults: dict[str, Any], entry: Any) -> Scenario:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a mapping, got {entry!r}")
    parameters = {**(defaults.get("parameters") or {}), **(entry.get("parameters") or {})}
    values = {**defaults, **entry, **({"parameters": parameters} if parameters else {})}
    for key in values:
        if key not in Scenario.__struct_encode_fields__:
            guess = did_you_mean(str(key), Scenario.__struct_encode_fields__)
            raise ConfigError(f"{where}: unknown entry {key!r}{guess}")
    scenario = _converted(where, Scenario, values)
    for number, fault in enumerate(scenario.faults):
        _check_fault(f"{where}: faults[{number}]", fault)
    for saying in scenario.sayings:
        try:
            re.compile(saying.text)
        except re.error as error:
            raise ConfigError(f"{where}: says: {saying.text!r} is no regular expression ({error})") from error
    return scenario


def _converted(where: str, kind: type[S], values: Any) -> S:
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$.")
        place = f"{at.rstrip('`')}: " if at else ""
        raise ConfigError(f"{where}: {place}{text[0].lower()}{text[1:].replace('`', '')}") from error


def _check_fault(where: str, fault: Fault) -> None:
    """Raise ConfigError for a fault that does not exist, or not on that stream, or lacks what it needs."""
    if fault.stream not in STREAMS:
        guess = did_you_mean(fault.stream, STREAMS)
        raise ConfigError(f"{where}: unknown stream {fault.stream!r}{guess}; known: {', '.join(STREAMS)}")
    kinds = [name for name, kind in FAULTS.items() if fault.stream in kind.streams]
    if fault.fault not in kinds:
        guess = did_you_mean(fault.fault, kinds)
        raise ConfigError(
            f"{where}: {fault.stream} has no fault {fault.fault!r}{guess}; it has {', '.join(kinds)}"
        )
    kind = FAULTS[fault.fault]
    if kind.words and fault.text not in kind.words:
        raise ConfigError(f"{where}: text: expected {', '.join(kind.words)}, got {fault.text!r}")
    if fault.to_s is not None and kind.at_once:
        raise ConfigError(f"{where}: {fault.fault} happens at once, it has no 'to'")
    if fault.to_s is not None and fault.to_s <= fault.from_s:
        raise ConfigError(f"{where}: to: expected more than from = {fault.from_s:g}, got {fault.to_s:g}")
