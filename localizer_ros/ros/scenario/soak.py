"""The node for a long time, as fast as it goes: whether anything grows, and whether a pose is ever wrong.

The recording is driven to and fro: forwards, backwards, forwards again, its stamps going on, in simulated time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.ros.scenario.in_process import InProcess, Play
from localizer_ros.ros.scenario.packets import (
    IMAGE_TAKES_NS,
    INFO_TAKES_NS,
    LEAD_NS,
    ODOMETRY_TAKES_NS,
    Packet,
    Timeline,
    recorded,
)
from localizer_ros.ros.scenario.schema import Scenario
from localizer_ros.ros.scenario.verdict import judge

STEP_M = 0.1


@dataclass(slots=True)
class Soak:
    """What was found.

    Attributes:
        frames: sent.
        answered: of them.
        wrong: poses and transforms that were wrong by more than half a metre or ten degrees, beyond their own 3 sigma.
        worst_m: position error of any pose.
        steps: times that ``map -> odom`` moved by more than ``STEP_M`` at once.
        largest_step_m: of it.
        jumps: those that the node counted as jumps itself; None where it does not count.
        memory_mb: resident, after each lap.
        threads: after each lap.
        descriptors: open files, after each lap.
        crashes: errors nobody foresaw.
        state: of the lifecycle at the end.
    """

    frames: int = 0
    answered: int = 0
    wrong: int = 0
    worst_m: float = 0.0
    steps: int = 0
    largest_step_m: float = 0.0
    jumps: int | None = None
    memory_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    state: str = ""

    @property
    def growth_mb(self) -> float:
        """Memory at the end over that after the first fifth, which warms up; medians of some laps of each."""
        laps = len(self.memory_mb)
        some = max(1, laps // 10)
        warm = self.memory_mb[laps // 5 : laps // 5 + some]
        return float(np.median(self.memory_mb[-some:]) - np.median(warm)) if laps else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "growth_mb": self.growth_mb}

    def lines(self) -> list[str]:
        """For people."""
        first, last = len(self.threads) // 5, -1
        return [
            f"{self.frames} frames in {len(self.memory_mb)} laps, {self.answered} answered, {self.wrong} wrong, "
            f"worst {self.worst_m:.2f} m",
            f"map -> odom: {self.steps} steps over {STEP_M:g} m, the largest {self.largest_step_m:.2f} m; the node "
            f"counts {'no jumps' if self.jumps is None else self.jumps} of them as jumps",
            f"memory {self.memory_mb[first]:.1f} MB after warm-up, {self.memory_mb[last]:.1f} MB at the end, growth "
            f"{self.growth_mb:+.1f} MB",
            f"threads {self.threads[first]} and {self.threads[last]}, descriptors {self.descriptors[first]} and "
            f"{self.descriptors[last]}",
            f"state {self.state or 'gone'}, unexpected errors: {len(self.crashes)}",
            *self.crashes[:3],
        ]


def soak(scene: Path, source: FrameSource, frames: int, progress: Progress = no_progress) -> Soak:
    """Drive a recording to and fro.

    Args:
        scene: folder of the scene.
        source: the recording; all in one sequence, with ground truth.
        frames: at least this many.
        progress: told after each lap.

    Raises:
        ConfigError: the recording has less than three frames.
    """
    scenario = Scenario(about="A long drive.")
    timeline = recorded(source, scenario)
    images = [packet for packet in timeline.packets if packet.stream == "image"]
    if len(images) < 3:
        raise ConfigError(f"{source.path}: expected at least three frames")
    found = Soak()
    player = InProcess(scene, source)
    try:
        with player.node(scenario, timeline) as play:
            laps = _laps(timeline)
            while found.frames < frames and not found.crashes:
                _drive(play, timeline, next(laps), scenario, found)
                _measure(found)
                progress("soak", found.frames, frames)
    finally:
        player.close()
    return found


def _laps(timeline: Timeline) -> Iterator[tuple[int, list[Packet]]]:
    """The end and the packets of each lap: there, back, there again."""
    sent = [p for p in timeline.packets if p.stream != "tf_static"]
    first_ns = min(p.stamp_ns for p in sent if p.stream == "image")
    last_ns = max(p.stamp_ns for p in sent if p.stream == "image")
    takes_ns = {"image": IMAGE_TAKES_NS, "camera_info": INFO_TAKES_NS}
    begin_ns, there = 0, True
    static = [p for p in timeline.packets if p.stream == "tf_static"]
    while True:
        packets = static if begin_ns == 0 else []
        for packet in sent:
            after_ns = packet.stamp_ns - first_ns if there else last_ns - packet.stamp_ns
            # Where it turns, the last moment of a lap is the first of the next.
            if not (after_ns > 0 or begin_ns == 0) or after_ns > last_ns - first_ns:
                continue
            at_ns = begin_ns + after_ns + takes_ns.get(packet.stream, ODOMETRY_TAKES_NS)
            packets.append(
                Packet(
                    packet.stream,
                    at_ns,
                    timeline.begin_ns + begin_ns + after_ns,
                    packet.number,
                    packet.T,
                    packet.T_map_base,
                )
            )
        begin_ns += last_ns - first_ns
        yield begin_ns, sorted(packets, key=lambda p: p.at_ns)
        there = not there


def _drive(
    play: Play, timeline: Timeline, lap: tuple[int, list[Packet]], scenario: Scenario, found: Soak
) -> None:
    """One lap, judged and forgotten."""
    end_ns, packets = lap
    play.feed(packets)
    # The last frame is answered before the lap is judged; nothing is sent meanwhile.
    play.run(end_ns + IMAGE_TAKES_NS + LEAD_NS // 6)
    record = play.record
    figures = judge(scenario, timeline, record).figures
    found.frames += len(record.images)
    found.answered += int(figures["answered"] or 0)
    found.wrong += int(figures["wrong"] or 0)
    found.worst_m = max(found.worst_m, float(figures["worst_m"] or 0.0))
    found.crashes += [text for _, text in record.crashes]
    found.state = record.state
    transforms = [T for *_, T in record.transforms]
    for before, after in pairwise(transforms):
        step_m = before.distance_to(after)
        found.steps += step_m > STEP_M
        found.largest_step_m = max(found.largest_step_m, step_m)
    if record.said:
        counted = [v for key, v in record.said[-1].values.items() if "jump" in key and "odom" in key]
        found.jumps = (
            int(counted[0].split()[0]) if counted and counted[0].split()[0].isdigit() else found.jumps
        )
    # What the next lap needs of this one: the last transform, for the step to the next, and the end of the odometry.
    record.answers.clear()
    record.images.clear()
    del record.said[:-1]
    del record.transforms[:-1]
    for stamp_ns in sorted(record.odometry)[:-100]:
        del record.odometry[stamp_ns]


def _measure(found: Soak) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found.memory_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    found.threads.append(len(list(Path("/proc/self/task").iterdir())))
    found.descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
