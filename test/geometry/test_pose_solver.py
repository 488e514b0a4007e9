"""Poses from matches of rays and points."""

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry import pose_solver
from localizer_ros.geometry.pose_solver import coverage_of, refine_pose, solve_pose

FOCAL_PX = 500.0


def seen_from(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def test_jacobian_is_the_derivative_of_the_residual(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.1, 0.2, -0.1, 0.3, 0.1, 0.2]), rng.uniform(-1, 1, (20, 3)) + np.array([0.0, 0.0, 3.0])
    rays = seen_from(T, X) + rng.normal(0, 0.01, (20, 2))
    residual, J, _ = pose_solver._linearised(T, rays.T, X.T, FOCAL_PX)
    for k in range(6):
        step = np.zeros(6)
        step[k] = 1e-6
        moved = pose_solver._linearised(T @ SE3.exp(step), rays.T, X.T, FOCAL_PX)[0]
        # Central differences are not needed: the second derivative is below 1e3 px.
        assert np.allclose((moved - residual) / 1e-6, J[k], atol=2e-2)


def test_pose_is_found_among_wrong_matches(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.3, -0.2, 0.1, 0.5, -0.4, 0.2]), rng.uniform(-1, 1, (200, 3)) + np.array([0.0, 0.0, 3.0])
    rays = seen_from(T, X) + rng.normal(0, 0.5 / FOCAL_PX, (200, 2))
    rays[:120] += rng.uniform(-0.4, 0.4, (120, 2))
    solved = solve_pose(rays, X, FOCAL_PX, 6.0, 2000, 0, 12)
    assert solved is not None
    assert solved.T_map_refined.distance_to(T) < 0.005
    assert solved.T_map_refined.angle_to(T) < np.radians(0.15)
    assert 80 <= solved.count <= 95


def test_a_start_far_off_comes_to_the_same_pose_as_one_nearby(rng: np.random.Generator) -> None:
    X = rng.uniform(-1, 1, (150, 3)) + np.array([0.0, 0.0, 3.0])
    for _ in range(50):
        T = SE3.exp(rng.normal(0, 0.2, 6))
        rays = seen_from(T, X) + rng.normal(0, 0.7 / FOCAL_PX, (150, 2))
        rays[:30] += rng.uniform(-0.1, 0.1, (30, 2))
        way = rng.normal(size=6)
        # Points are 30 px away from where they should be, or half a pixel.
        far, near = (SE3.exp(T.log()) @ SE3.exp(way / np.linalg.norm(way) * by) for by in (0.06, 0.001))
        a, b = (refine_pose(start, rays, X, FOCAL_PX, 4.0, 12) for start in (far, near))
        assert a is not None and b is not None
        assert a.T_map_refined.angle_to(b.T_map_refined) * FOCAL_PX < 0.05
        assert a.T_map_refined.distance_to(b.T_map_refined) / 3.0 * FOCAL_PX < 0.05
        # No further step would help.
        again = refine_pose(a.T_map_refined, rays, X, FOCAL_PX, 4.0, 12, iterations=50)
        assert again is not None and again.T_map_refined.angle_to(a.T_map_refined) * FOCAL_PX < 0.02


@pytest.mark.parametrize(("count", "near", "near_m"), [(20, 2, 0.5), (100, 5, 0.5), (20, 3, 1.0)])
def test_few_points_nearby_among_many_far_away_tell_the_position(
    rng: np.random.Generator, count: int, near: int, near_m: float
) -> None:
    for _ in range(60):
        depth = np.concatenate([rng.uniform(near_m, 3.0 * near_m, near), rng.uniform(10, 40, count - near)])
        rays = rng.uniform([-0.6, -0.45], [0.6, 0.45], (count, 2))
        X = np.concatenate([rays, np.ones((count, 1))], axis=1) * depth[:, None]
        rays += rng.normal(0, 0.5 / FOCAL_PX, (count, 2))
        way = rng.normal(size=3)
        # Points nearby are some 6 px away from where they should be, those far away a tenth of that.
        start = SE3(np.eye(3), way / np.linalg.norm(way) * 6.0 * near_m / FOCAL_PX)
        solved = refine_pose(start, rays, X, FOCAL_PX, 4.0, 12)
        best = refine_pose(SE3.identity(), rays, X, FOCAL_PX, 4.0, 12, iterations=200)
        assert solved is not None and best is not None
        error = (solved.T_map_refined.inverse() @ best.T_map_refined).log()
        assert error @ np.linalg.solve(best.covariance, error) < 0.3


def test_no_pose_from_wrong_matches_alone(rng: np.random.Generator) -> None:
    X = rng.uniform(-1, 1, (100, 3)) + np.array([0.0, 0.0, 3.0])
    assert solve_pose(rng.uniform(-0.5, 0.5, (100, 2)), X, FOCAL_PX, 4.0, 500, 0, 15) is None
    assert solve_pose(np.zeros((3, 2)), X[:3], FOCAL_PX, 4.0, 500, 0, 4) is None


def test_covariance_covers_the_scatter(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.1, 0.0, 0.0, 0.2, 0.1, 0.0]), rng.uniform(-1, 1, (60, 3)) + np.array([0.0, 0.0, 3.0])
    nees = []
    for _ in range(100):
        rays = seen_from(T, X) + rng.normal(0, 1.0 / FOCAL_PX, (60, 2))
        solved = refine_pose(T, rays, X, FOCAL_PX, 6.0, 12)
        assert solved is not None
        error = (solved.T_map_refined.inverse() @ T).log()
        nees.append(error @ np.linalg.solve(solved.covariance, error))
    # 6 for a perfect covariance; below, because neighbours are assumed to share errors and here do not.
    assert 1.5 < np.mean(nees) < 7.0


def test_coverage_is_the_share_of_cells_with_a_keypoint() -> None:
    half_view = np.array([0.8, 0.6])
    assert coverage_of(np.zeros((0, 2)), half_view) == 0.0
    assert coverage_of(np.array([[0.1, 0.1], [0.11, 0.11]]), half_view) == 1 / 48
    x, y = np.meshgrid(np.linspace(-0.79, 0.79, 40), np.linspace(-0.59, 0.59, 40))
    assert coverage_of(np.stack([x.ravel(), y.ravel()], axis=1), half_view) == 1.0
