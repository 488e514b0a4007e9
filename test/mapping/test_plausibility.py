"""A refined camera that no calibration is so wrong about is named."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.mapping.plausibility import implausible_refinement

GIVEN = Camera.pinhole(640, 480, 500.0, 500.0, 320.0, 240.0)
PLAUSIBLE = np.array([504.0, 498.0, 323.0, 238.0, 0.01, 0.0, 0.0, 0.0])


def test_a_good_calibration_is_left_alone() -> None:
    assert implausible_refinement(GIVEN, PLAUSIBLE, SE3.exp([0.005, 0, 0, 0.01, 0, 0]), 2.0) == []


@pytest.mark.parametrize(
    ("change", "T", "said"),
    [
        ({0: 530.0}, SE3.identity(), "focal length"),
        ({2: 300.0}, SE3.identity(), "principal point fits the images 20 px off"),
        ({}, SE3.exp([0, 0, 0, 0.1, 0, 0]), "10 cm"),
        ({}, SE3.exp([0.04, 0, 0, 0, 0, 0]), "2.3 deg"),
    ],
)
def test_what_is_implausible_is_named(change: dict[int, float], T: SE3, said: str) -> None:
    intrinsics = PLAUSIBLE.copy()
    for k, value in change.items():
        intrinsics[k] = value
    (line,) = implausible_refinement(GIVEN, intrinsics, T, 2.0)
    assert said in line
