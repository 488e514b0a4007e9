"""From 2D-3D matches to a pose: RANSAC, robust least squares, covariance, and how much of it to believe."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.statistics import median
from localizer_ros.core.types import Array, Float32

# A keypoint is not better than this, whatever a small sample of residuals says.
_LEAST_SIGMA_PX = 0.4
# The median length of a 2D Gaussian error is this many sigma.
_MEDIAN_OF_LENGTH = 1.1774
# Neighbouring keypoints share the errors of their points: so many of them count half.
_SHARED = 100.0
# A step that turns further is no refinement any more.
_LONGEST_TURN_RAD = 1.0
# A point must lie ahead of the camera by this much to be projected, metres; it only keeps from dividing by zero.
_AHEAD_M = 1e-3
# A step that moves points by less than this angle (a two-hundredth of a pixel at f = 500 px) is the last.
_STILL = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class SolvedPose:
    """A pose and what supports it.

    Attributes:
        T_map_refined: the pose.
        covariance: (6, 6) in its tangent, from the Jacobian and the residuals.
        inliers: (N,) bool, of the matches given.
        error_px: (N,) reprojection errors, infinite behind the camera.
    """

    T_map_refined: SE3
    covariance: Array
    inliers: NDArray[np.bool_]
    error_px: Array

    @property
    def count(self) -> int:
        """Number of inliers."""
        return int(self.inliers.sum())


def solve_pose(
    rays: Array,
    points: Array | Float32,
    focal_px: float,
    max_error_px: float,
    max_iterations: int,
    seed: int,
    min_inliers: int,
) -> SolvedPose | None:
    """Absolute pose by LO-RANSAC (Lebeda et al. 2012, by PoseLib) and refinement on its inliers; None when that fails.

    Args:
        rays: (N, 2) on the plane z = 1.
        points: (N, 3) in the map.
        focal_px: pixels per unit on that plane.
        max_error_px: of an inlier.
        max_iterations: of RANSAC.
        seed: of RANSAC.
        min_inliers: fewer are no answer.
    """
    if len(rays) < max(4, min_inliers):
        return None
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal_px, 0.0, 0.0]}
    pose, report = poselib.estimate_absolute_pose(
        np.asarray(rays, dtype=np.float64) * focal_px,
        np.asarray(points, dtype=np.float64),
        camera,
        {
            "max_reproj_error": max_error_px,
            "min_iterations": 100,
            "max_iterations": max_iterations,
            "seed": seed,
        },
        {"loss_type": "CAUCHY", "loss_scale": 1.0},
    )
    if report["num_inliers"] < min_inliers:
        return None
    R = np.asarray(pose.R, dtype=np.float64)
    start = SE3(R.T.copy(), -R.T @ np.asarray(pose.t, dtype=np.float64))
    return refine_pose(start, rays, points, focal_px, max_error_px, min_inliers)


def refine_pose(
    T_map_refined: SE3,
    rays: Array,
    points: Array | Float32,
    focal_px: float,
    max_error_px: float,
    min_inliers: int,
    iterations: int = 10,
) -> SolvedPose | None:
    """The pose by robust non-linear least squares from one near the truth; None when too few matches fit it.

    The kernel is Cauchy's with a width that follows the residuals. Matches beyond ``max_error_px`` count less and less
    rather than being cut, so that a start a few pixels off still converges.

    Args:
        T_map_refined: where to start.
        rays: (N, 2) on the plane z = 1.
        points: (N, 3) in the map.
        focal_px: pixels per unit on that plane.
        max_error_px: of an inlier.
        min_inliers: fewer are no answer.
        iterations: at most.
    """
    rays = np.asarray(rays, dtype=np.float64)
    points = np.asarray(points, dtype=np.float64)
    T = _converged(T_map_refined, rays, points, focal_px, max_error_px, iterations)
    if T is None:
        return None
    residual, J, ahead = _linearised(T, rays, points, focal_px)
    error = np.where(ahead, np.sqrt(np.einsum("ni,ni->n", residual, residual)), np.inf)
    inliers = error < max_error_px
    if int(inliers.sum()) < max(4, min_inliers):
        return None
    covariance = _covariance(residual[inliers], J[inliers], error[inliers])
    return None if covariance is None else SolvedPose(T, covariance, inliers, error)


def _converged(
    T: SE3, rays: Array, points: Array, focal_px: float, max_error_px: float, iterations: int
) -> SE3 | None:
    """The pose after Gauss-Newton iterations; None where the problem is singular or runs away."""
    depth_m = median(np.abs((points - T.t) @ T.R[:, 2])) if len(points) else 0.0
    for _ in range(iterations):
        residual, J, ahead = _linearised(T, rays, points, focal_px)
        squared = np.einsum("ni,ni->n", residual, residual)
        width = _width_px(np.sqrt(squared[ahead]), max_error_px)
        H, g = _normal_equations(J, residual, np.where(ahead, 1.0 / (1.0 + squared / width**2), 0.0))
        H[np.diag_indices(6)] *= 1.0 + 1e-9
        try:
            step = -np.asarray(np.linalg.solve(H, g), dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.all(np.isfinite(step)) or np.linalg.norm(step[:3]) > _LONGEST_TURN_RAD:
            return None
        T = _moved(T, step)
        if np.linalg.norm(step[:3]) < _STILL and np.linalg.norm(step[3:]) < _STILL * depth_m:
            break
    return T


def _covariance(residual: Array, J: Array, error: Array) -> Array | None:
    """(6, 6) from the residuals of inliers and their Jacobian; None where they leave the pose open."""
    sigma = max(_LEAST_SIGMA_PX, median(error) / _MEDIAN_OF_LENGTH)
    weight = 1.0 / (1.0 + (error / (2.0 * sigma)) ** 2)
    H, _ = _normal_equations(J, residual, weight)
    values, vectors = np.linalg.eigh(H)
    if values[0] <= 1e-9 * values[-1]:
        return None
    # Residuals above sigma (a heavy tail) widen the covariance by the ratio to what the kernel expected.
    variance = float(np.sum(weight * error**2)) / max(2.0 * float(weight.sum()), 1.0)
    shared = 1.0 + len(error) / _SHARED
    return np.asarray((vectors / values) @ vectors.T * max(variance, _LEAST_SIGMA_PX**2) * shared)


def information(T_map_refined: SE3, rays: Array, points: Array, focal_px: float) -> Array:
    """(6, 6) ``J^T J`` of reprojection errors in pixels by the tangent of the pose; its inverse is the covariance of
    independent errors of one pixel.

    Args:
        T_map_refined: the pose.
        rays: (N, 2) on the plane z = 1.
        points: (N, 3) in the map.
        focal_px: pixels per unit on that plane.
    """
    residual, J, _ = _linearised(T_map_refined, rays, points, focal_px)
    return _normal_equations(J, residual, np.ones(len(J)))[0]


def _normal_equations(J: Array, residual: Array, weight: Array) -> tuple[Array, Array]:
    """``J^T W J`` (6, 6) and ``J^T W r`` (6,) of (N, 2, 6), (N, 2) and (N,)."""
    flat = J.reshape(-1, 6)
    weighted = (J * weight[:, None, None]).reshape(-1, 6)
    return weighted.T @ flat, weighted.T @ residual.reshape(-1)


def _moved(T: SE3, step: Array) -> SE3:
    # Not the exponential map, but the same to first order, which is all that an iteration needs, and ten times faster.
    turn, _ = cv2.Rodrigues(step[:3])
    return SE3(T.R @ turn, T.t + T.R @ step[3:])


def _width_px(error: Array, max_error_px: float) -> float:
    if len(error) == 0:
        return max_error_px
    # Twice the typical error; between half a pixel and what an inlier may have.
    return min(max(2.0 * median(error) / _MEDIAN_OF_LENGTH, 1.0), max_error_px)


def _linearised(
    T: SE3, rays: Array, points: Array, focal_px: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Residuals (N, 2) in px, their Jacobian (N, 2, 6) by the tangent of T, and which points lie ahead."""
    p = (points - T.t) @ T.R
    ahead = p[:, 2] > _AHEAD_M
    inverse_z = 1.0 / np.where(ahead, p[:, 2], 1.0)
    x, y = p[:, 0] * inverse_z, p[:, 1] * inverse_z
    residual = np.stack([x, y], axis=1) - rays
    J = np.empty((len(p), 2, 6))
    # p moves by p x w - v; projected, that is the classical interaction matrix.
    J[:, 0, 0], J[:, 0, 1], J[:, 0, 2] = x * y, -(1.0 + x * x), y
    J[:, 1, 0], J[:, 1, 1], J[:, 1, 2] = 1.0 + y * y, -x * y, -x
    J[:, 0, 3], J[:, 0, 4], J[:, 0, 5] = -inverse_z, 0.0, x * inverse_z
    J[:, 1, 3], J[:, 1, 4], J[:, 1, 5] = 0.0, -inverse_z, y * inverse_z
    return residual * focal_px, J * focal_px, ahead


def coverage_of(rays: Array, half_view: Array, columns: int = 8, rows: int = 6) -> float:
    """Share (0..1) of the cells of a grid over the image that hold a keypoint.

    Args:
        rays: (N, 2) keypoints on the plane z = 1.
        half_view: (2,) half width and height of the image there.
        columns, rows: of the grid.
    """
    if len(rays) == 0:
        return 0.0
    cell = np.clip((rays / half_view + 1.0) * 0.5, 0.0, 0.999) * [columns, rows]
    return len(np.unique(cell.astype(int) @ [1, columns])) / (columns * rows)
