"""The robot's pose and velocity from the camera's: poses, covariances, velocities, and map -> odom."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.robot_pose import BasePose, base_pose, base_twist, camera_pose, map_to_odom
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, PoseEstimate, RelativePose

STAMP = 1_700_000_000_123_456_789
SECOND = 1_000_000_000


def random_pose(rng: np.random.Generator, far_m: float = 5.0) -> SE3:
    return SE3.exp(np.concatenate([rng.normal(0.0, 1.5, 3), rng.normal(0.0, far_m, 3)]))


def random_covariance(rng: np.random.Generator) -> Array:
    A = rng.normal(0.0, 0.1, (6, 6))
    return A @ A.T + 1e-4 * np.eye(6)


def test_base_pose_moves_the_covariance_with_the_lever_arm(rng: np.random.Generator) -> None:
    T_map_cam, T_base_cam, S = random_pose(rng, 50.0), random_pose(rng, 1.0), random_covariance(rng) * 1e-4
    base = base_pose(PoseEstimate(STAMP, T_map_cam, S, "test"), T_base_cam)
    np.testing.assert_allclose((base.T_map_base @ T_base_cam).matrix(), T_map_cam.matrix(), atol=1e-9)
    assert base.stamp_ns == STAMP
    noise = rng.multivariate_normal(np.zeros(6), S, 4000)
    T_cam_base = T_base_cam.inverse()
    errors = np.array(
        [(base.T_map_base.inverse() @ T_map_cam @ SE3.exp(xi) @ T_cam_base).log() for xi in noise]
    )
    assert base.covariance is not None
    # 4000 samples: about 1/sqrt(2000) = 2 % per element.
    assert np.linalg.norm(np.cov(errors.T) - base.covariance) < 0.1 * np.linalg.norm(base.covariance)


def test_camera_pose_is_the_inverse_of_base_pose(rng: np.random.Generator) -> None:
    T_base_cam, pose = random_pose(rng), BasePose(STAMP, random_pose(rng), random_covariance(rng))
    prior = camera_pose(pose, T_base_cam, "initialpose")
    assert (prior.stamp_ns, prior.source) == (STAMP, "initialpose")
    back = base_pose(prior, T_base_cam)
    # Two products of well-scaled doubles and back.
    np.testing.assert_allclose(back.T_map_base.matrix(), pose.T_map_base.matrix(), atol=1e-12)
    assert back.covariance is not None and pose.covariance is not None
    np.testing.assert_allclose(back.covariance, pose.covariance, rtol=1e-9, atol=1e-12)


def test_an_unknown_covariance_stays_unknown(rng: np.random.Generator) -> None:
    T_base_cam = random_pose(rng)
    pose = base_pose(PoseEstimate(STAMP, random_pose(rng), None, "test"), T_base_cam)
    assert pose.covariance is None
    assert camera_pose(pose, T_base_cam, "initialpose").covariance is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pose_with_a_value_that_is_no_number_is_not_finite(bad: float) -> None:
    good = SE3.identity()
    assert BasePose(STAMP, good, None).finite and BasePose(STAMP, good, np.eye(6)).finite
    assert not BasePose(STAMP, SE3(np.eye(3), np.full(3, bad)), None).finite
    assert not BasePose(STAMP, good, np.full((6, 6), bad)).finite


def test_map_to_odom_puts_the_odometry_at_the_pose_in_the_map(rng: np.random.Generator) -> None:
    T_map_base, T_odom_base = random_pose(rng, 50.0), random_pose(rng, 50.0)
    T_map_odom = map_to_odom(T_map_base, T_odom_base)
    np.testing.assert_allclose((T_map_odom @ T_odom_base).matrix(), T_map_base.matrix(), atol=1e-9)


def test_base_twist_is_the_velocity_of_the_base_not_of_the_camera(rng: np.random.Generator) -> None:
    T_base_cam = random_pose(rng, 0.5)
    dt_s, velocity = 0.1, np.array([0.1, -0.2, 0.3, 1.0, 0.5, -0.25])
    T_prev_cur_cam = T_base_cam.inverse() @ SE3.exp(velocity * dt_s) @ T_base_cam
    S_base = random_covariance(rng) * 1e-3
    adjoint = T_base_cam.inverse().adjoint()
    relative = RelativePose(STAMP, STAMP + SECOND // 10, T_prev_cur_cam, adjoint @ S_base @ adjoint.T, "vo")
    twist = base_twist(relative, T_base_cam)
    assert twist is not None
    # Stamps are exact; exp and log of a small twist.
    np.testing.assert_allclose(twist.xi, velocity, atol=1e-9)
    np.testing.assert_allclose(twist.covariance, S_base / dt_s**2, rtol=1e-9, atol=1e-12)


def test_a_camera_that_turns_on_a_robot_that_stands_has_moved_and_the_robot_has_not(
    rng: np.random.Generator,
) -> None:
    T_base_prev, T_base_cam = (SE3.exp(rng.normal(0.0, 1.0, 6)) for _ in range(2))
    relative = RelativePose(0, 10**8, T_base_prev.inverse() @ T_base_cam, np.eye(6), "vo")
    twist = base_twist(relative, T_base_cam, T_base_prev)
    assert twist is not None
    # Rounding of a few products.
    np.testing.assert_allclose(twist.xi, np.zeros(6), atol=1e-12)


def test_no_time_or_no_number_is_no_velocity() -> None:
    S = np.eye(6)
    same_time = RelativePose(STAMP, STAMP, SE3.identity(), S, "vo")
    assert base_twist(same_time, SE3.identity()) is None
    unknown = RelativePose(STAMP, STAMP + SECOND, SE3.identity(), np.full((6, 6), np.inf), "vo")
    assert base_twist(unknown, SE3.identity()) is None
