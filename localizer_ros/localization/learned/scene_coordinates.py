"""The pose of an image from scene coordinates that a network answers for its cells: PnP in RANSAC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array
from localizer_ros.geometry.pose_solver import coverage_of, information, solve_pose
from localizer_ros.geometry.refined_camera import RefinedCamera

# Side of a cell: the stride of the fine features.
CELL_PX = 8
# Share of the cells, those of the smallest predicted sigma, that are used: edges, moving things and what training
# never saw have large ones.
USED_SHARE = 0.6
# Reprojection error of an inlier: half a cell.
MAX_ERROR_PX = 0.5 * CELL_PX
# Of RANSAC: enough where only a fifth of the cells is right, as three of those are drawn once in 125 times.
MAX_ITERATIONS = 1000
# Inliers of a pose, of the 460 cells used of a 256 x 192 image.
MIN_INLIERS = 30
# Share of the image's 8 x 6 parts that hold an inlier: a pose from one corner of the image is loose.
MIN_COVERAGE = 0.15
# Bounds of the error that the covariance is made of. With errors cut at 20 px, and all cells counted rather than the
# inliers, the raw NEES of a sequence left out fell from 1872 to 22.
MIN_SIGMA_PX, MAX_CELL_ERROR_PX = 0.4, 20.0


@dataclass(frozen=True, slots=True, eq=False)
class CoordinatesPose:
    """A pose and what supports it.

    Attributes:
        T_map_cam: the pose.
        covariance: (6, 6) in its tangent.
        inliers: number of cells that agree.
    """

    T_map_cam: SE3
    covariance: Array
    inliers: int


def pose_from_coordinates(
    points_3hw: NDArray[np.float32], log_sigma_hw: NDArray[np.float32], refined_camera: RefinedCamera
) -> CoordinatesPose | None:
    """The pose that the cells agree on; None where too few do, or where they lie in one corner of the image.

    Args:
        points_3hw: map coordinates, metres, of what the centre of each cell shows.
        log_sigma_hw: log of their standard deviations.
        refined_camera: how the image was taken.
    """
    h, w = log_sigma_hw.shape
    rays = _cell_rays(h, w, refined_camera.K)
    surest = np.argsort(log_sigma_hw.ravel(), kind="stable")[: int(USED_SHARE * h * w)]
    points = points_3hw.reshape(3, -1).T[surest].astype(np.float64)
    focal_px = 0.5 * float(refined_camera.K[0, 0] + refined_camera.K[1, 1])
    solved = solve_pose(rays[surest], points, focal_px, MAX_ERROR_PX, MAX_ITERATIONS, 0, MIN_INLIERS)
    if solved is None:
        return None
    half_view = np.array([w, h]) * CELL_PX / 2.0 / refined_camera.K[[0, 1], [0, 1]]
    inlier_rays = rays[surest][solved.inliers]
    if coverage_of(inlier_rays, half_view) < MIN_COVERAGE:
        return None
    # Neighbouring cells err together, and those that RANSAC chose agree because it chose them: what their own errors
    # make of the covariance is far too little, the more so where the network has not been. So the errors of all cells
    # count, and the square of the share that agrees.
    error_px = np.sqrt(np.mean(np.square(np.minimum(solved.error_px, MAX_CELL_ERROR_PX))))
    sigma_px = max(MIN_SIGMA_PX, float(error_px)) * len(surest) / solved.count
    agreeing = information(solved.T_map_refined, inlier_rays, points[solved.inliers], focal_px)
    T_refined_cam = refined_camera.T_cam_refined.inverse()
    covariance = compose_covariance(
        np.asarray(np.linalg.inv(agreeing) * sigma_px**2, np.float64), T_refined_cam
    )
    return CoordinatesPose(solved.T_map_refined @ T_refined_cam, covariance, solved.count)


def _cell_rays(h: int, w: int, K: Array) -> Array:
    """(h * w, 2) where the centres of the cells look, on the plane z = 1."""
    ys, xs = np.mgrid[0:h, 0:w]
    middle_px = (CELL_PX - 1) / 2
    centres = np.stack([xs.ravel(), ys.ravel(), np.zeros(h * w)], 1) * CELL_PX + [middle_px, middle_px, 1.0]
    return np.asarray((centres @ np.linalg.inv(K).T)[:, :2])
