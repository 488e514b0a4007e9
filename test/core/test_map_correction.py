"""``map -> odom`` in steps that a controller can bear."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.map_correction import LARGEST_STEP_M, MapCorrection
from localizer_ros.core.robot_pose import map_to_odom
from localizer_ros.core.se3 import SE3

PERIOD_NS = 33_333_333


def drive(index: int) -> SE3:
    """The odometry of a robot that turns as it goes, far from its origin."""
    return SE3.exp([0.0, 0.0, 0.5, 40.0, 3.0, 0.0]) @ SE3.exp(
        np.multiply([0.0, 0.0, 0.02, 0.03, 0.0, 0.0], index)
    )


def steps_m(offsets: list[SE3], rate_m_s: float = 0.3) -> tuple[list[float], list[float], MapCorrection]:
    """How far each transform moves the robot, and how far it is off the pose, for poses that are off the odometry by
    ``offsets``."""
    correction = MapCorrection(rate_m_s)
    moved, off, last = [], [], None
    for index, offset in enumerate(offsets):
        T_map_base, T_odom_base = offset @ drive(index), drive(index)
        T = correction.step(index * PERIOD_NS, map_to_odom(T_map_base, T_odom_base), T_odom_base)
        if last is not None:
            moved.append((last @ T_odom_base).distance_to(T @ T_odom_base))
        off.append((T @ T_odom_base).distance_to(T_map_base))
        last = T
    return moved, off, correction


def shifted(x_m: float) -> SE3:
    return SE3(np.eye(3), np.array([x_m, 0.0, 0.0]))


def test_a_small_correction_is_made_at_the_rate_and_no_jump() -> None:
    moved, off, correction = steps_m([shifted(0.0)] * 5 + [shifted(0.15)] * 40)
    assert max(moved) == pytest.approx(0.01, rel=1e-6)  # 0.3 m/s at 30 Hz
    assert off[-1] < 1e-9 and off[15] > 0.01 and correction.jumps == 0


def test_the_noise_of_poses_passes_as_it_is() -> None:
    rng = np.random.default_rng(0)
    _, off, correction = steps_m([shifted(x) for x in rng.normal(0.0, 0.002, 60)])
    assert max(off) < 1e-9 and correction.jumps == 0


def test_a_large_correction_is_made_at_once_and_counted_with_its_size() -> None:
    moved, off, correction = steps_m([shifted(0.0)] * 5 + [shifted(1.9)] * 5)
    assert max(moved) == pytest.approx(1.9, rel=1e-6) and max(off) < 1e-9
    assert correction.jumps == 1 and correction.last_jump.startswith("1.90 m, 0.0 deg: too large")


def test_a_turn_counts_as_well() -> None:
    turned = drive(5) @ SE3.exp([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]) @ drive(5).inverse()
    _, _, correction = steps_m([SE3.identity()] * 5 + [turned] * 3)
    assert correction.jumps == 1 and "28.6 deg" in correction.last_jump


def test_a_pose_found_anew_owes_nothing_to_the_last_one() -> None:
    correction = MapCorrection(0.3)
    correction.step(0, SE3.identity(), drive(0))
    correction.restart()
    T = correction.step(PERIOD_NS, shifted(0.2), drive(1))
    assert T.distance_to(shifted(0.2)) == 0.0
    assert correction.jumps == 1 and "localised anew" in correction.last_jump
    correction.restart()
    correction.step(2 * PERIOD_NS, shifted(0.25), drive(2))
    assert correction.jumps == 1, "a step that small is none"


def test_what_rare_transforms_cannot_make_good_in_a_second_is_a_jump() -> None:
    correction = MapCorrection(5.0)
    correction.step(0, SE3.identity(), SE3.identity())
    T = correction.step(500_000_000, shifted(0.15), SE3.identity())
    assert T.distance_to(SE3.identity()) == pytest.approx(LARGEST_STEP_M) and correction.jumps == 0
    T = correction.step(1_000_000_000, shifted(1.5), SE3.identity())
    assert T.distance_to(shifted(1.5)) == 0.0 and correction.jumps == 1


def test_a_correction_beside_contradicted_odometry_is_not_held_back_and_told_where_it_is_a_jump() -> None:
    correction = MapCorrection(0.3)
    for index, (x, jumps) in enumerate([(0.0, 0), (0.05, 0), (0.09, 0), (0.4, 1)]):
        correction.restart("odometry contradicts the images")
        T = correction.step(index * PERIOD_NS, shifted(x), drive(0))
        assert T.distance_to(shifted(x)) < 1e-9 and correction.jumps == jumps
    assert correction.last_jump == "0.31 m, 0.0 deg: odometry contradicts the images"
