"""The same bag gives the same answers, bit for bit: in one process, in another one, and after a reset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY_WORLD
from rosbags.highlevel import AnyReader

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.replay import DIAGNOSTICS_TOPIC, POSE_TOPIC, replay
from localizer_ros.evaluation.run_localizer import FrameLocalizer
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene


def answers(bag: Path) -> list[tuple[str, int, bytes]]:
    """All that a robot would consume; how long each stage took is another matter each time."""
    with AnyReader([bag]) as reader:
        return [(c.topic, t, bytes(raw)) for c, t, raw in reader.messages() if c.topic != DIAGNOSTICS_TOPIC]


def replayed(
    localizer: FrameLocalizer, scene: Path, source: FrameSource, out: Path
) -> list[tuple[str, int, bytes]]:
    replay(localizer, Scene.load(scene), source, out, RunConfig())
    return answers(out)


@pytest.mark.parametrize("made", ["tiny_map", pytest.param("tiny_scene", marks=pytest.mark.slow)])
def test_two_replays_and_one_after_a_reset_are_the_same(
    made: str, tiny_source: FrameSource, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    scene: Path = request.getfixturevalue(made)
    source = FirstFrames(tiny_source, 16)
    first, second = open_localizer(scene, RunConfig()), open_localizer(scene, RunConfig())
    try:
        once = replayed(first, scene, source, tmp_path / "once")
        assert len(once) > 3
        assert replayed(second, scene, source, tmp_path / "again") == once
        first.reset()
        assert replayed(first, scene, source, tmp_path / "after_a_reset") == once
    finally:
        first.close()
        second.close()


@pytest.mark.slow
def test_another_process_gives_the_same_answers(tiny_map: Path, tmp_path: Path) -> None:
    world = tmp_path / "world.yaml"
    world.write_text(yaml.safe_dump(TINY_WORLD))
    bags = []
    # Neither the order of sets nor the number of threads may matter.
    for seed, threads in (("1", "1"), ("2", "2")):
        bags.append(tmp_path / seed)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-m", "localizer_ros.cli", "replay", str(tiny_map), str(world)]
        subprocess.run([*command, "--out", str(bags[-1])], check=True, env=environment, capture_output=True)
    first, second = map(answers, bags)
    assert POSE_TOPIC in {topic for topic, _, _ in first}
    assert first == second
