"""Places that rejected answers name, side by side."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import PoseEstimate
from localizer_ros.localization.hypotheses import Hypotheses

# Of one frame to the next: the camera moves along x.
STEP_M = 0.3


def at(place_m: float, frame: int, confidence: float | None = 0.99) -> PoseEstimate:
    """A pose in a frame of a camera that began at a place."""
    T = SE3.exp([0.0, 0.0, 0.0, place_m + STEP_M * frame, 0.0, 0.0])
    return PoseEstimate(frame, T, np.eye(6) * 0.01**2, "test", confidence=confidence)


def make() -> Hypotheses:
    return Hypotheses(lambda a, b: a.T_map_cam.distance_to(b.T_map_cam) < 0.1)


def add(hypotheses: Hypotheses, answer: PoseEstimate, known: bool = True) -> None:
    def forward(pose: PoseEstimate) -> PoseEstimate | None:
        moved = SE3.exp([0.0, 0.0, 0.0, STEP_M * (answer.stamp_ns - pose.stamp_ns), 0.0, 0.0])
        return PoseEstimate(answer.stamp_ns, pose.T_map_cam @ moved, None, "test") if known else None

    hypotheses.add(answer, forward)


def test_answers_that_agree_over_a_way_are_proven() -> None:
    hypotheses = make()
    for frame in range(3):
        assert not hypotheses.agreeing(3, must_move=True)
        add(hypotheses, at(9.0, frame))
    assert hypotheses.agreeing(3, must_move=True) and not hypotheses.agreeing(4, must_move=True)


def test_one_outlier_between_them_does_not_undo_it() -> None:
    hypotheses = make()
    for frame, place_m in enumerate((9.0, 9.0, 50.0, 9.0)):
        add(hypotheses, at(place_m, frame))
    assert hypotheses.agreeing(3, must_move=True)


def test_two_places_that_are_as_likely_wait() -> None:
    hypotheses = make()
    for frame in range(12):
        add(hypotheses, at(9.0 if frame % 2 else 50.0, frame))
        assert not hypotheses.agreeing(3, must_move=True)
    for frame in range(12, 15):
        add(hypotheses, at(9.0, frame))
    assert hypotheses.agreeing(3, must_move=True)


@pytest.mark.parametrize("confidence", [0.999, 0.7, None])
def test_random_answers_prove_nothing_and_are_few(confidence: float | None, rng: np.random.Generator) -> None:
    hypotheses = make()
    for frame in range(30):
        add(hypotheses, at(float(rng.uniform(-100.0, 100.0)), frame, confidence))
        assert not hypotheses.agreeing(3, must_move=False) and len(hypotheses) <= 4


def test_what_cannot_be_moved_begins_anew() -> None:
    hypotheses = make()
    for frame in range(2):
        add(hypotheses, at(9.0, frame))
    add(hypotheses, at(9.0, 2), known=False)
    assert not hypotheses.agreeing(2, must_move=False)
    hypotheses.clear()
    assert not hypotheses.agreeing(1, must_move=False)
