"""Scene coordinates of a network's cells to a pose: perspective-n-point in RANSAC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array
from localizer_ros.geometry.pose_solver import coverage_of, information, solve_pose

CELL_PX = 8
# Share of the cells, the surest first, that are used; edges, things that move and what was never seen are not sure.
USED_SHARE = 0.6
MAX_ERROR_PX = 4.0
MAX_ITERATIONS = 1000
FEWEST_INLIERS = 30
# Share of the image's cells (8 x 6) that must hold an inlier: poses from one corner are not to be believed.
LEAST_SPREAD = 0.15
# In the covariance errors above the second count as that much, and together never less than the first.
LEAST_PX, FAR_PX = 0.4, 20.0


@dataclass(frozen=True, eq=False)
class RefinedCamera:
    """How the network's image was taken.

    Attributes:
        K: (3, 3) calibration that fits the map, pixels of the network's image.
        T_cam_refined: the optical centre on the body whose pose is wanted.
    """

    K: Array
    T_cam_refined: SE3

    def to_dict(self) -> dict[str, list[float]]:
        """Plain numbers for a model card."""
        return {
            "K": self.K.ravel().tolist(),
            "t_cam_refined": self.T_cam_refined.t.tolist(),
            "q_cam_refined": self.T_cam_refined.quaternion_xyzw().tolist(),
        }

    @staticmethod
    def from_dict(values: dict[str, list[float]]) -> RefinedCamera:
        """From the numbers of a model card. Raises KeyError or ValueError where they are none."""
        return RefinedCamera(
            np.array(values["K"], dtype=np.float64).reshape(3, 3),
            SE3.from_quaternion(np.array(values["t_cam_refined"]), np.array(values["q_cam_refined"])),
        )


@dataclass(frozen=True, eq=False)
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
    """The pose the cells agree on, None where too few do or they lie in one corner.

    Args:
        points_3hw: map coordinates, metres, of what the centre of each cell shows.
        log_sigma_hw: log of their errors.
        refined_camera: how the image was taken.
    """
    h, w = log_sigma_hw.shape
    ys, xs = np.mgrid[0:h, 0:w]
    centres = np.stack([xs.ravel(), ys.ravel(), np.zeros(h * w)], 1) * CELL_PX + [
        *[(CELL_PX - 1) / 2] * 2,
        1.0,
    ]
    rays = (centres @ np.linalg.inv(refined_camera.K).T)[:, :2]
    surest = np.argsort(log_sigma_hw.ravel(), kind="stable")[: int(USED_SHARE * h * w)]
    points = points_3hw.reshape(3, -1).T[surest].astype(np.float64)
    focal_px = 0.5 * float(refined_camera.K[0, 0] + refined_camera.K[1, 1])
    solved = solve_pose(rays[surest], points, focal_px, MAX_ERROR_PX, MAX_ITERATIONS, 0, FEWEST_INLIERS)
    if solved is None:
        return None
    half_view = np.array([w, h]) * CELL_PX / 2.0 / refined_camera.K[[0, 1], [0, 1]]
    if coverage_of(rays[surest][solved.inliers], half_view) < LEAST_SPREAD:
        return None
    # Neighbouring cells err together, and those that RANSAC chose agree because it chose them: what their own errors
    # make of the covariance is far too little, the more so where the network has not been. So the errors of all cells
    # count, and the square of the share that agrees.
    error_px = np.sqrt(np.mean(np.square(np.minimum(solved.error_px, FAR_PX))))
    sigma_px = max(LEAST_PX, float(error_px)) * len(surest) / solved.count
    agreeing = information(
        solved.T_map_refined, rays[surest][solved.inliers], points[solved.inliers], focal_px
    )
    T_refined_cam = refined_camera.T_cam_refined.inverse()
    covariance = compose_covariance(
        np.asarray(np.linalg.inv(agreeing) * sigma_px**2, np.float64), T_refined_cam
    )
    return CoordinatesPose(solved.T_map_refined @ T_refined_cam, covariance, solved.count)
