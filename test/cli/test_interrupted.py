"""`map` and `sfm` killed (kill -9) at any moment leave nothing that looks like a result; the same again goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from command_steps import run_command
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import SceneError
from localizer_ros.datasets.source import open_source
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.scene.bundle import Scene, check_free

WORLD = "width_px: 160\nheight_px: 120\nfps: 5\nduration_s: 4\nmoving_objects: 0\n"
SETTINGS = ["structure.features.max_keypoints=400", "structure.keyframes.max_images=12"]
SETTINGS += ["structure.retrieval.words=16"]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that need not import everything again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["localizer_ros.cli.main", "localizer_ros.mapping.reconstruction"])
    return context


class Command:
    """A command line that can be run to its end or killed on the way."""

    def __init__(self, processes: ForkServerContext, *arguments: object) -> None:
        self.processes, self.arguments = processes, [str(a) for a in arguments]

    def run(self, kill_after: int | None = None, delay_s: float = 0.0) -> tuple[int, list[str]]:
        """Exit code and the steps seen; with ``kill_after`` it is killed so many steps (and seconds) on."""
        here, there = self.processes.Pipe(duplex=False)
        process = self.processes.Process(target=run_command, args=(self.arguments, there))
        process.start()
        there.close()
        steps: list[str] = []
        with contextlib.suppress(EOFError):
            while kill_after is None or len(steps) < kill_after:
                steps.append(here.recv())
        if kill_after is not None:
            time.sleep(delay_s)
            process.kill()
        process.join(60.0)
        assert process.exitcode is not None
        return process.exitcode, steps


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def killed_on_the_way(command: Command, out: Path, rng: np.random.Generator, kills: int) -> None:
    """Kill it again and again, going on each time; then let it finish."""
    steps_of_a_run = 45  # of `map`; those of what is done already are skipped, so that later kills come later
    for _ in range(kills):
        code, _ = command.run(int(rng.integers(1, steps_of_a_run)), float(rng.uniform(0.0, 0.1)))
        assert code in (-9, 0)
        if code == 0 or out.exists():
            break  # too late: what is there must be whole, which the caller sees to
        assert visible(out.parent) == ["world.yaml"]
    else:
        assert hidden(out.parent)  # something to go on from
        code, steps = command.run()
        assert code == 0 and steps
    assert visible(out.parent) == sorted([out.name, "world.yaml"])


def world(folder: Path) -> Path:
    file = folder / "world.yaml"
    file.write_text(WORLD)
    return file


def test_a_killed_map_leaves_no_half_scene_and_goes_on(processes: ForkServerContext, tmp_path: Path) -> None:
    out, recording = tmp_path / "scene", world(tmp_path)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = Command(processes, "map", recording, "--out", out, *settings)
    killed_on_the_way(command, out, np.random.default_rng(1), kills=4)
    assert Scene.load(out).method == "hierarchical"
    source = open_source(recording)
    front_end = open_map_front_end(out, "hierarchical", LocalizerConfig())
    answer = front_end.observe(source.read(10), None).absolute
    front_end.close()
    truth = source.records[10].T_map_cam
    assert answer is not None and truth is not None and answer.T_map_cam.distance_to(truth) < 0.1


def test_a_killed_sfm_leaves_no_half_result_and_goes_on(processes: ForkServerContext, tmp_path: Path) -> None:
    out, recording = tmp_path / "poses", world(tmp_path)
    command = Command(processes, "sfm", recording, "--out", out, "--set", SETTINGS[2])
    killed_on_the_way(command, out, np.random.default_rng(3), kills=3)
    assert sorted(p.name for p in out.iterdir()) == ["sparse", "trajectory.txt"]
    # Images this small place 7 frames, and on a busy machine, where threads add up in another order, 3.
    assert len(Trajectory.read_tum(out / "trajectory.txt")) >= 3
    assert command.run()[0] == 1  # it is there already


def test_going_on_skips_what_is_done_and_refuses_other_settings(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    out, recording = tmp_path / "poses", world(tmp_path)
    arguments = ("sfm", recording, "--out", out, "--set", SETTINGS[2])
    _, steps = Command(processes, *arguments).run(kill_after=10)
    assert steps.count("features") >= 5 and "matches" in steps
    assert hidden(tmp_path) == [".poses.partial", ".poses.work"]
    refused = CliRunner().invoke(app, [*map(str, arguments), "--set", SETTINGS[0]])
    assert refused.exit_code == 1 and "begun with other settings" in refused.stderr
    code, steps = Command(processes, *arguments).run()
    assert code == 0 and "features" not in steps
    assert hidden(tmp_path) == []


def test_a_scene_that_was_being_replaced_is_still_there(tiny_map: Path, tmp_path: Path) -> None:
    """Killed between the two renames of an overwrite."""
    shutil.copytree(tiny_map, tmp_path / ".scene.old")
    with pytest.raises(SceneError, match="exists already"):
        check_free(tmp_path / "scene", overwrite=False)
    assert Scene.load(tmp_path / "scene").method == "hierarchical"
    assert hidden(tmp_path) == []
