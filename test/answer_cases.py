"""Answers with known errors, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer

PERIOD_NS = 100_000_000


def turn(degrees: float) -> SE3:
    """A rotation about y."""
    return SE3.exp([0.0, np.radians(degrees), 0.0, 0.0, 0.0, 0.0])


def shift(metres: float) -> SE3:
    """A translation along y."""
    return SE3(np.eye(3), np.array([0.0, metres, 0.0]))


def truth(i: int) -> SE3:
    """Drives 0.1 m and turns 1 degree a frame."""
    return SE3(turn(float(i)).R, np.array([0.1 * i, 0.0, 0.0]))


def answers_with(errors: Sequence[SE3 | None], sequence: str = "a", start: int = 0) -> list[Answer]:
    """One answer a frame: the truth moved by an error in the map frame; None is no answer."""
    return [
        Answer(
            sequence,
            (start + i) * PERIOD_NS,
            truth(i),
            None if error is None else SE3(truth(i).R @ error.R, truth(i).t + error.t),
        )
        for i, error in enumerate(errors)
    ]
