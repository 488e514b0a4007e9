"""Places that rejected answers name, side by side."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import PoseEstimate
from localizer_ros.localization.hypotheses import Hypotheses

# Of one frame to the next: the camera moves along x.
STEP_M = 0.3


def at(place_m: float, frame: int, confidence: float | None = 0.999) -> PoseEstimate:
    """A pose in a frame of a camera that began at a place."""
    T = SE3.exp([0.0, 0.0, 0.0, place_m + STEP_M * frame, 0.0, 0.0])
    return PoseEstimate(frame, T, np.eye(6) * 0.01**2, "test", confidence=confidence)


def make() -> Hypotheses:
    return Hypotheses(lambda a, b: a.T_map_cam.distance_to(b.T_map_cam) < 0.1, 0.999)


def add(hypotheses: Hypotheses, answer: PoseEstimate, known: bool = True) -> None:
    def forward(pose: PoseEstimate) -> PoseEstimate | None:
        moved = SE3.exp([0.0, 0.0, 0.0, STEP_M * (answer.stamp_ns - pose.stamp_ns), 0.0, 0.0])
        return PoseEstimate(answer.stamp_ns, pose.T_map_cam @ moved, None, "test") if known else None

    hypotheses.add(answer, forward)


def test_answers_that_agree_over_a_way_are_proven() -> None:
    hypotheses = make()
    for frame in range(3):
        assert not hypotheses.agreeing(3, contradicting=True)
        add(hypotheses, at(9.0, frame))
    assert hypotheses.agreeing(3, contradicting=True) and not hypotheses.agreeing(4, contradicting=True)


def test_an_outlier_between_them_only_delays_it() -> None:
    hypotheses = make()
    for frame, place_m in enumerate((9.0, 9.0, 50.0, 9.0, 9.0)):
        add(hypotheses, at(place_m, frame))
    assert hypotheses.agreeing(3, contradicting=True)


def test_two_places_that_are_as_likely_wait() -> None:
    hypotheses = make()
    for frame in range(12):
        add(hypotheses, at(9.0 if frame % 2 else 50.0, frame))
        assert not hypotheses.agreeing(3, contradicting=True)
    for frame in range(12, 15):
        add(hypotheses, at(9.0, frame))
    assert hypotheses.agreeing(3, contradicting=True)


@pytest.mark.parametrize("confidence", [0.999, 0.7, None])
def test_random_answers_prove_nothing_and_are_few(confidence: float | None, rng: np.random.Generator) -> None:
    hypotheses = make()
    for frame in range(30):
        add(hypotheses, at(float(rng.uniform(-100.0, 100.0)), frame, confidence))
        assert not hypotheses.agreeing(3, contradicting=False) and len(hypotheses) <= 4


def test_answers_that_are_less_sure_must_be_more() -> None:
    hypotheses = make()
    for frame in range(5):
        add(hypotheses, at(9.0, frame, 0.98))
        assert not hypotheses.agreeing(3, contradicting=True)
    add(hypotheses, at(9.0, 5, 0.98))
    assert hypotheses.agreeing(3, contradicting=True)


def test_a_place_that_is_found_now_and_then_is_none() -> None:
    hypotheses = make()
    for frame in range(60):
        if frame % 5:
            hypotheses.unfound()
        else:
            add(hypotheses, at(9.0, frame, 0.995))
        assert not hypotheses.agreeing(3, contradicting=True)
    hypotheses.clear()
    for frame in range(5):
        if frame % 4 == 1:
            hypotheses.unfound()
        else:
            add(hypotheses, at(9.0, frame))
    add(hypotheses, at(9.0, 5))
    assert hypotheses.agreeing(3, contradicting=True)


def test_what_cannot_be_moved_begins_anew() -> None:
    hypotheses = make()
    for frame in range(2):
        add(hypotheses, at(9.0, frame))
    add(hypotheses, at(9.0, 2), known=False)
    assert not hypotheses.agreeing(2, contradicting=False)
    hypotheses.clear()
    assert not hypotheses.agreeing(1, contradicting=False)
