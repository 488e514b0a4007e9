"""The covariance of motions: their sum is the error of the whole way, however many steps it is told in."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.visual_odometry.drift import Drift

GIVEN = Camera.pinhole(640, 480, 500.0, 500.0, 319.5, 239.5)
USUAL_M = 3.0


def straight(drift: Drift, metres: float, steps: int) -> np.ndarray:
    """(6, 6) what a straight way forward adds, turns and their effect on places aside."""
    total = np.zeros((6, 6))
    step = SE3(np.eye(3), np.array([0.0, 0.0, metres / steps]))
    for number in range(1, steps + 1):
        total += drift.after(step, SE3(np.eye(3), number * step.t), USUAL_M)
    return total


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_a_way_is_as_uncertain_in_many_steps_as_in_one(steps: int) -> None:
    camera = RayCamera(GIVEN, Camera.pinhole(640, 480, 510.0, 510.0, 319.5, 239.5))
    assert straight(Drift(camera, 0.01), 8.0, steps) == pytest.approx(straight(Drift(camera, 0.01), 8.0, 1))


def test_a_way_errs_along_by_its_scale_and_aside_by_its_calibration() -> None:
    small, large = (straight(Drift(RayCamera(GIVEN), sigma), 50.0, 10) for sigma in (0.001, 0.02))
    assert large[5, 5] - small[5, 5] == pytest.approx((0.02 * 50.0) ** 2 - (0.001 * 50.0) ** 2)
    assert large[3, 3] == large[4, 4] == pytest.approx(small[3, 3])
    # Nobody knows where ahead is to better than thousandths, however well lengths are known.
    assert np.sqrt(small[3, 3]) > 0.001 * 50.0


def test_a_camera_that_a_map_has_refined_is_known_better_unless_that_changed_much() -> None:
    by_change = [
        straight(Drift(RayCamera(GIVEN, Camera.pinhole(640, 480, f, f, 319.5, 239.5)), 0.01), 5.0, 5)
        for f in (500.0, 505.0, 525.0)
    ]
    given = straight(Drift(RayCamera(GIVEN), 0.01), 5.0, 5)
    turns = [total[0, 0] for total in by_change]
    assert turns[0] < given[0, 0] < turns[2] and turns == sorted(turns)
