"""From 2D-3D matches to a pose: RANSAC, robust least squares, covariance, and how much of it to believe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

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
# A step that moves no point by this much, px, is the last. Of 279 poses of Red Kitchen one in a hundred is more than
# 0.006 px off what many more iterations find, after 3.4 of them in the mean.
_STILL_PX = 0.03


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
    matches = _rows(rays, points)
    T = _converged(T_map_refined, *matches, focal_px, max_error_px, iterations)
    if T is None:
        return None
    residual, J, ahead = _linearised(T, *matches, focal_px)
    error = np.where(ahead, np.sqrt(_squared(residual)), np.inf)
    inliers = error < max_error_px
    if int(inliers.sum()) < max(4, min_inliers):
        return None
    covariance = _covariance(residual, J, error, inliers)
    return None if covariance is None else SolvedPose(T, covariance, inliers, error)


def _rows(rays: Array, points: Array | Float32) -> tuple[Array, Array]:
    """(2, N) and (3, N) of (N, 2) rays and (N, 3) points: NumPy is twice as fast along rows of many matches."""
    return np.ascontiguousarray(np.transpose(rays), np.float64), np.ascontiguousarray(
        np.transpose(points), np.float64
    )


def _converged(
    T: SE3, rays: Array, points: Array, focal_px: float, max_error_px: float, iterations: int
) -> SE3 | None:
    """The pose after Newton iterations; None where the problem is singular or runs away."""
    moved_px = math.inf
    for _ in range(iterations):
        residual, J, ahead = _linearised(T, rays, points, focal_px)
        squared = _squared(residual)
        width = _width_px(squared[ahead], max_error_px)
        weight = ahead / (1.0 + squared / width**2)
        # Once the residuals are noise, as many of one direction as of another, the curvature of Cauchy's kernel is the
        # squared weight. While the start's own error is in them it is not, and the weight is safe: of few points nearby
        # among many far away, all that tells a position may still move.
        H = _normal_matrix(J, weight if moved_px > width else weight * weight)
        H.flat[::7] *= 1.0 + 1e-9
        step, singular = dposv(H, _gradient(J, residual, weight))[1:]
        turn_rad, move_m = math.hypot(*step[:3]), math.hypot(*step[3:])
        if singular or not (turn_rad <= _LONGEST_TURN_RAD and math.isfinite(move_m)):
            return None
        T = T @ SE3.exp(-step)
        moved_px = _longest((step @ J.reshape(6, -1)).reshape(2, -1), ahead)
        if moved_px < _STILL_PX:
            break
    return T


def _covariance(residual: Array, J: Array, error: Array, inliers: NDArray[np.bool_]) -> Array | None:
    """(6, 6) from the residuals of inliers and their Jacobian; None where they leave the pose open."""
    told = error[inliers]
    sigma = max(_LEAST_SIGMA_PX, median(told) / _MEDIAN_OF_LENGTH)
    weight = inliers / (1.0 + (error / (2.0 * sigma)) ** 2)
    H = _normal_matrix(J, weight)
    values, vectors = np.linalg.eigh(H)
    if values[0] <= 1e-9 * values[-1]:
        return None
    # Residuals above sigma (a heavy tail) widen the covariance by the ratio to what the kernel expected.
    variance = float(weight[inliers] @ told**2) / max(2.0 * float(weight.sum()), 1.0)
    shared = 1.0 + len(told) / _SHARED
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
    _, J, _ = _linearised(T_map_refined, *_rows(rays, points), focal_px)
    return _normal_matrix(J, np.ones(len(points)))


def _normal_matrix(J: Array, weight: Array) -> Array:
    """``J^T W J`` (6, 6) of (6, 2, N) and (N,)."""
    return (J * weight).reshape(6, -1) @ J.reshape(6, -1).T


def _gradient(J: Array, residual: Array, weight: Array) -> Array:
    """``J^T W r`` (6,) of (6, 2, N), (2, N) and (N,)."""
    return J.reshape(6, -1) @ (weight * residual).reshape(-1)


def _squared(residual: Array) -> Array:
    """(N,) squared lengths of (2, N)."""
    return np.asarray(residual[0] * residual[0] + residual[1] * residual[1])


def _longest(moves: Array, ahead: NDArray[np.bool_]) -> float:
    """Length of the longest of (2, N) moves of points ahead."""
    return math.sqrt(float(np.max(_squared(moves), where=ahead, initial=0.0)))


def _width_px(squared: Array, max_error_px: float) -> float:
    """Of the kernel, by the (N,) squared errors of the points ahead."""
    if len(squared) == 0:
        return max_error_px
    # Twice the typical error; between half a pixel and what an inlier may have.
    return min(max(2.0 * float(np.sqrt(median(squared))) / _MEDIAN_OF_LENGTH, 1.0), max_error_px)


def _linearised(
    T: SE3, rays: Array, points: Array, focal_px: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Residuals (2, N) in px, their Jacobian (6, 2, N) by the tangent of T, and (N,) which points lie ahead, of (2, N)
    rays and (3, N) points."""
    p = T.R.T @ (points - T.t[:, None])
    ahead = p[2] > _AHEAD_M
    inverse_z = 1.0 / np.where(ahead, p[2], 1.0)
    xy = p[:2] * inverse_z
    x, y = xy
    J = np.zeros((6, 2, len(x)))
    # p moves by p x w - v; projected, that is the classical interaction matrix, here times the focal length.
    near, fx, fy = -focal_px * inverse_z, focal_px * x, focal_px * y
    J[0, 0] = fx * y
    np.negative(J[0, 0], out=J[1, 1])
    J[1, 0], J[0, 1] = -focal_px - fx * x, focal_px + fy * y
    J[2, 0], J[2, 1] = fy, -fx
    J[3, 0] = J[4, 1] = near
    J[5, 0], J[5, 1] = -near * x, -near * y
    return (xy - rays) * focal_px, J, ahead


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
    return len(set((cell.astype(int) @ [1, columns]).tolist())) / (columns * rows)
