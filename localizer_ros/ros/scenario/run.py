"""Scenarios run one after the other, and what came of them: for a table, for JSON, for an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros.scenario.in_process import InProcess
from localizer_ros.ros.scenario.live import Live
from localizer_ros.ros.scenario.packets import Timeline
from localizer_ros.ros.scenario.record import Record
from localizer_ros.ros.scenario.schema import Scenario
from localizer_ros.ros.scenario.verdict import Verdict, judge


class Player(Protocol):
    """Plays scenarios of one scene and one recording."""

    def play(self, scenario: Scenario) -> tuple[Record, Timeline]:
        """What came of a scenario."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one scenario.

    Attributes:
        name: of it.
        scenario: it.
        live: it went over DDS.
        verdict: what held and what did not.
    """

    name: str
    scenario: Scenario
    live: bool
    verdict: Verdict

    @property
    def outcome(self) -> str:
        """``held``, ``broken``, ``known`` where that was expected, or ``mended`` where the opposite was."""
        if self.scenario.fails:
            return "mended" if self.verdict.held else "known"
        return "held" if self.verdict.held else "broken"

    @property
    def as_expected(self) -> bool:
        """Nothing to do: it held, or it failed as is known of it."""
        return self.outcome in ("held", "known")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "about": self.scenario.about,
            "live": self.live,
            "outcome": self.outcome,
            "fails": self.scenario.fails,
            **self.verdict.figures,
            "broken": [f"{check.name}: {check.detail}" for check in self.verdict.broken],
            "checks": [check.name for check in self.verdict.checks],
        }

    def lines(self) -> list[str]:
        """For people: a line, and below it what did not hold."""
        figures = self.verdict.figures

        def number(key: str, unit: str) -> str:
            value = figures.get(key)
            return "-" if value is None else f"{value:.2f} {unit}"

        line = (
            f"{self.name:36} {self.outcome:7} {figures['answered']:>4}/{figures['frames']:<4} "
            f"worst {number('worst_m', 'm'):>7} {number('worst_deg', 'deg'):>10}  "
            f"named {number('named_s', 's'):>7}  recovered {number('recovered_s', 's'):>7}"
        )
        return [line, *(f"    {check.name}: {check.detail}" for check in self.verdict.broken)]


def run(
    scene: Path,
    source: FrameSource,
    scenarios: Mapping[str, Scenario],
    live: bool = False,
    progress: Progress = no_progress,
) -> Iterator[Result]:
    """What comes of scenarios, each when its result is asked for.

    Args:
        scene: folder of the scene.
        source: the recording.
        scenarios: by their names.
        live: over DDS, with the node in a process of its own; only those that are marked for it.
        progress: told of every scenario after it was played.

    Raises:
        ConfigError: the recording has no ground truth, or no frames when a scenario begins.
        SceneError: there is no scene.
    """
    if not any(record.T_map_cam is not None for record in source.records):
        raise ConfigError(f"{source.path}: has no ground truth, by which poses could be called wrong")
    chosen = {name: s for name, s in scenarios.items() if s.live or not live}
    player: Player = Live(scene, source) if live else InProcess(scene, source)
    with closing(player):
        for done, (name, scenario) in enumerate(chosen.items(), 1):
            record, timeline = player.play(scenario)
            yield Result(name, scenario, live, judge(scenario, timeline, record))
            progress("scenarios", done, len(chosen))
