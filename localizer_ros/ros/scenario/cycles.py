"""The node's lifecycle again and again, in a process of its own, over DDS: every transition, possible or not."""

from __future__ import annotations

import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros.scenario.live import Live, LiveRobot
from localizer_ros.ros.scenario.record import Record
from localizer_ros.ros.scenario.schema import Scenario
from localizer_ros.ros.scenario.verdict import judge

IMPOSSIBLE = {
    "unconfigured": ("cleanup", "activate", "deactivate"),
    "inactive": ("configure", "deactivate"),
    "active": ("configure", "cleanup", "activate"),
    "finalized": ("configure", "cleanup", "activate", "deactivate"),
}
"""Transitions that each state does not have."""
DRIVE_S = 1.5


@dataclass(slots=True)
class Cycles:
    """What was found.

    Attributes:
        cycles: from unconfigured to active and back.
        refused: impossible transitions, all of which must be.
        wrong: what was not answered as it should be, in words.
        answered: poses of each cycle; none is wrong where ``wrong`` is empty.
        memory_mb: resident memory of the node's process, after each cycle.
    """

    cycles: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    @property
    def growth_mb(self) -> float:
        """Memory at the end over that after the first quarter, by which everything was opened more than once."""
        return self.memory_mb[-1] - self.memory_mb[len(self.memory_mb) // 4]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "growth_mb": self.growth_mb}


def cycle(scene: Path, source: FrameSource, count: int) -> Cycles:
    """Take a node through its lifecycle.

    In each cycle every impossible transition is asked for in every state, and frames are played while it is active,
    which must be answered rightly.

    Args:
        scene: folder of the scene.
        source: the recording.
        count: of cycles.

    Raises:
        ConfigError: the node does not start.
    """
    scenario = Scenario(about="A drive.", duration=DRIVE_S, parameters={"autostart": False}, answers=0.0)
    found = Cycles()
    with Live(scene, source).started(scenario) as (robot, process, record):
        for number in range(count):
            _round(robot, process, scenario, record, found)
            if record.crashes or process.poll() is not None:
                raise ConfigError(f"the node ended in cycle {number + 1}")
            found.cycles += 1
            found.memory_mb.append(_resident_mb(process.pid))
        _take(robot, found, "shutdown", "finalized")
    found.wrong += [text for _, text in record.crashes]
    return found


def _round(
    robot: LiveRobot, process: subprocess.Popen[str], scenario: Scenario, record: Record, found: Cycles
) -> None:

    for label, state in (("configure", "inactive"), ("activate", "active")):
        _take(robot, found, label, state)
    record.answers.clear()
    record.transforms.clear()
    record.images.clear()
    robot.play(process)
    figures = judge(scenario, robot.timeline, record).figures
    found.answered.append(int(figures["answered"] or 0))
    if figures["wrong"] or not figures["answered"]:
        found.wrong.append(f"{figures['answered']} poses, {figures['wrong']} wrong")
    for label, state in (("deactivate", "inactive"), ("activate", "active"), ("deactivate", "inactive")):
        _take(robot, found, label, state)
    _take(robot, found, "cleanup", "unconfigured")


def _take(robot: LiveRobot, found: Cycles, label: str, state: str) -> None:
    """A transition that is possible, after all that are not."""
    before = robot.state()
    for impossible in IMPOSSIBLE.get(before, ()):
        if robot.change(impossible) or robot.state() != before:
            found.wrong.append(f"{impossible} while {before} was not refused")
        found.refused += 1
    if not robot.change(label) or robot.state() != state:
        found.wrong.append(f"{label} while {before} led to {robot.state()}")


def _resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
