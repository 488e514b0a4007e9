"""What lower precision may cost, and by which images that is judged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.progress import no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SceneError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.scene.bundle import Scene
from localizer_ros.training.data import load_posed_images
from localizer_ros.training.precision_gate import Answers, PrecisionGate, accuracy, open_gate


def at(x_m: float, yaw_deg: float = 0.0) -> SE3:
    return SE3.exp(np.array([0.0, 0.0, np.radians(yaw_deg), 0.0, 0.0, 0.0])) @ SE3(
        np.eye(3), np.array([x_m, 0.0, 0.0])
    )


TRUTH = [at(0.0) for _ in range(20)]
# Off by 1 m and 10 deg, once by 2 m and 20 deg.
BEFORE: list[SE3 | None] = [at(1.0, 10.0) for _ in range(19)] + [at(2.0, 20.0)]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BEFORE, []),
        # Moves of a tenth of the error, some to the better and some to the worse.
        ([at(1.0 + 0.1 * (-1) ** i, 10.0 + (-1) ** i) for i in range(19)] + [at(2.0, 20.0)], []),
        # All to the worse, by six percent.
        ([at(1.06, 10.0) for _ in range(19)] + [at(2.12, 20.0)], ["int8_mean_t_m"]),
        ([at(1.0, 10.6) for _ in range(19)] + [at(2.0, 21.2)], ["int8_mean_r_deg"]),
        # To the better, but so far that it is chance.
        ([at(0.6, 10.0) for _ in range(19)] + [at(2.0, 20.0)], ["moved_median_t_m"]),
        # One frame that is thrown to another place, as far off as before.
        ([at(1.0, 10.0) for _ in range(19)] + [at(-1.0, 20.0)], ["moved_most_t_m"]),
        ([*BEFORE[:18], None, BEFORE[19]], []),
        ([*BEFORE[:10], *[None] * 10], ["lost"]),
    ],
)
def test_the_gate_looks_at_errors_moves_and_answers(after: list[SE3 | None], said: list[str]) -> None:
    verdict = accuracy(("int8", "lost", "t_m", "r_deg"), TRUTH, BEFORE, after)
    assert [text.split()[0] for text in verdict.worse] == said
    assert all(re.fullmatch(r"\w+ [\d.]+ of [\d.]+", text) for text in verdict.worse)
    assert verdict.figures["lost"] == pytest.approx(sum(T is None for T in after) / 20)
    if "moved_most_t_m" in verdict.figures:
        assert verdict.t_m == pytest.approx(verdict.figures["moved_most_t_m"], rel=1e-5)
        assert verdict.r_deg == pytest.approx(verdict.figures["moved_most_r_deg"], rel=1e-5, abs=1e-5)


def gate_of(source: FrameSource, before: Answers) -> PrecisionGate:
    data = load_posed_images(source, source.read(0).camera).subset(np.arange(3))
    gate = PrecisionGate(Path(), "posenet", data, data)
    gate.__dict__["before"] = before
    return gate


def test_a_network_without_answers_cannot_be_judged(tiny_source: FrameSource) -> None:
    nothing = Answers([None] * 3, [None] * 3)
    verdict = gate_of(tiny_source, nothing).verdict(nothing, "int8")
    assert verdict.worse == ["no answer in single precision"] and not verdict.figures
    # Without a motion head there are no motions to judge.
    gate = gate_of(tiny_source, nothing)
    gate.__dict__["before"] = Answers(list(gate.judged.poses), [None] * 3)
    verdict = gate.verdict(nothing, "int8")
    assert verdict.worse == ["lost 1 of 0.05"] and verdict.figures == {"lost": 1.0}
    assert verdict.t_m == np.inf


@pytest.mark.slow
def test_a_gate_holds_what_training_did_not_see(tiny_scene: Path, tiny_source: FrameSource) -> None:
    scene = Scene.load(tiny_scene)
    gate = open_gate(scene, tiny_source, no_progress)
    assert len(gate.judged) == scene.manifest["accuracy"]["frames"]
    assert not set(gate.judged.names) & set(gate.trained.names)
    with pytest.raises(SceneError, match=r"was mapped from 32 frames .* has 20; give the recording"):
        open_gate(scene, FirstFrames(tiny_source, 20), no_progress)
