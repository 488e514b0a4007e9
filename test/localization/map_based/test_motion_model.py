"""Predictions by constant velocity, and what they and motions are worth."""

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.pose_solver import SolvedPose
from localizer_ros.localization.map_based.motion_model import (
    constant_velocity,
    flow_covariance,
    stray_covariance,
    timing_covariance,
)

FRAME_NS = 33_333_333
STEP = SE3.exp([0.0, 0.02, 0.01, 0.0, 0.0, 0.03])


def test_a_steady_camera_is_where_it_is_predicted() -> None:
    T = SE3.exp([0.1, 0.2, 0.3, 1.0, 2.0, 3.0])
    predicted, covariance = constant_velocity((FRAME_NS, T @ STEP), (0, T), 3 * FRAME_NS, 2.0)
    assert predicted.distance_to(T @ STEP @ STEP @ STEP) < 1e-9
    assert np.allclose(covariance, stray_covariance(2.0, 2.0), rtol=1e-3)


def test_a_camera_of_unknown_velocity_stays_and_is_less_certain() -> None:
    predicted, covariance = constant_velocity((0, STEP), None, FRAME_NS, 2.0)
    assert predicted.distance_to(STEP) == 0.0
    assert np.all(np.diag(covariance) > 8.9 * np.diag(stray_covariance(2.0)))


def test_uncertainty_of_translation_follows_the_depth() -> None:
    near, far = (np.sqrt(np.diag(stray_covariance(depth_m))) for depth_m in (1.0, 20.0))
    assert np.allclose(near[:3], far[:3]) and np.allclose(20.0 * near[3:], far[3:])


def test_the_error_of_a_stamp_moves_the_pose_along_its_motion() -> None:
    covariance = timing_covariance(STEP, 1 / 30, 0.01)
    moved = STEP.log() * 0.3
    assert np.allclose(covariance, np.outer(moved, moved))


def test_a_motion_is_less_certain_the_larger_it_is() -> None:
    def sigmas(T: SE3, depth_m: float) -> np.ndarray:
        solved = SolvedPose(T, np.zeros((6, 6)), np.ones(4, bool), np.zeros(4))
        return np.asarray(np.sqrt(np.diag(flow_covariance(solved, depth_m))))

    still, turned = sigmas(SE3.identity(), 2.0), sigmas(SE3.exp([0.0, 0.2, 0.0, 0.0, 0.0, 0.0]), 2.0)
    moved = sigmas(SE3.exp([0.0, 0.0, 0.0, 0.4, 0.0, 0.0]), 2.0)
    assert np.all(turned > 5.0 * still)
    assert np.allclose(moved, turned, rtol=1e-6)
    assert np.allclose(2.0 * turned[:3], turned[3:], rtol=0.1)
