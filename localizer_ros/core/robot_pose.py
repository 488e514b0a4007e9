"""The robot's pose and velocity from the camera's: the one composition for the node, the replay and their checks.

The localizer speaks of the camera (``T_map_cam``); a robot is steered by the pose of its base (``T_map_base``). The
extrinsics ``T_base_cam`` between them are taken as exact: a covariance is only carried from one frame to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3, compose_covariance, inverse_covariance
from localizer_ros.core.types import Array, PoseEstimate, RelativePose


@dataclass(frozen=True, slots=True, eq=False)
class BasePose:
    """A pose of the robot in the map.

    Attributes:
        stamp_ns: stamp of the image it was found in.
        T_map_base: pose of the base.
        covariance: (6, 6) in the tangent of ``T_map_base``: rotation (rad), then translation (m). None when unknown.
    """

    stamp_ns: int
    T_map_base: SE3
    covariance: Array | None

    @property
    def finite(self) -> bool:
        """False when any value is NaN or infinite."""
        return bool(
            np.all(np.isfinite(self.T_map_base.R))
            and np.all(np.isfinite(self.T_map_base.t))
            and (self.covariance is None or np.all(np.isfinite(self.covariance)))
        )


@dataclass(frozen=True, slots=True, eq=False)
class BaseTwist:
    """A velocity of the robot, in its own frame.

    Attributes:
        xi: (6,) angular (rad/s), then linear (m/s).
        covariance: (6, 6) in the same order.
    """

    xi: Array
    covariance: Array


def base_pose(estimate: PoseEstimate, T_base_cam: SE3) -> BasePose:
    """The pose of the base at the camera's estimate: ``T_map_base = T_map_cam @ T_cam_base``."""
    T_cam_base = T_base_cam.inverse()
    covariance = None
    if estimate.covariance is not None:
        covariance = compose_covariance(estimate.covariance, T_cam_base)
    return BasePose(estimate.stamp_ns, estimate.T_map_cam @ T_cam_base, covariance)


def camera_pose(pose: BasePose, T_base_cam: SE3, source: str) -> PoseEstimate:
    """The camera's pose at a pose of the base, as a prior is given: ``T_map_cam = T_map_base @ T_base_cam``."""
    covariance = pose.covariance
    if covariance is not None:
        covariance = compose_covariance(covariance, T_base_cam)
    return PoseEstimate(pose.stamp_ns, pose.T_map_base @ T_base_cam, covariance, source)


def map_to_odom(T_map_base: SE3, T_odom_base: SE3) -> SE3:
    """``T_map_odom`` (REP-105) of a pose in the map and the odometry **of the same time**."""
    return T_map_base @ T_odom_base.inverse()


def base_twist(relative: RelativePose, T_base_cam: SE3, T_base_prev: SE3 | None = None) -> BaseTwist | None:
    """Mean velocity of the base between two frames; None when no time passed or a value is not finite.

    ``T_prev_cur`` of the base is ``T_base_prev @ T_prev_cur @ T_cam_base`` of the camera's.

    Args:
        relative: of the camera.
        T_base_cam: where it was at the later frame.
        T_base_prev: and at the earlier one; None = there, too.
    """
    dt_s = (relative.stamp_cur_ns - relative.stamp_prev_ns) * 1e-9
    if dt_s <= 0.0:
        return None
    T_base_prev = T_base_cam if T_base_prev is None else T_base_prev
    T_prev_cur = T_base_prev @ relative.T_prev_cur @ T_base_cam.inverse()
    # The error is one of the later camera: its covariance moves with the adjoint of T_base_cam.
    covariance = inverse_covariance(T_base_cam, relative.covariance)
    twist = BaseTwist(T_prev_cur.log() / dt_s, covariance / dt_s**2)
    return twist if np.all(np.isfinite(twist.xi)) and np.all(np.isfinite(twist.covariance)) else None
