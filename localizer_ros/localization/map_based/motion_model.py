"""How the camera moves between two frames: where it should be next, and how well its motion is known.

Translations follow the depth of the scene: a hand that strays by a degree looks at things as far off as one that strays
by a fiftieth of their distance.
"""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.geometry.pose_solver import SolvedPose

# How far a hand-held camera strays from constant velocity within a frame of 30 Hz (1 sigma): rad, share of the depth.
_STRAY_RAD, _STRAY_OF_DEPTH = np.radians(0.7), 0.008
_FRAMES_PER_S = 30.0
# How much further it strays from standing still.
_STILL = 3.0
# Motion between two frames is never known better than this (1 sigma), as rolling shutter and blur are not in any
# residual. With it the normalised squared errors of motions have a median of 3 to 6.5 on sequences of 7-Scenes Red
# Kitchen, where 5.35 is due.
_LEAST_SIGMA_RAD, _LEAST_SIGMA_OF_DEPTH = np.radians(0.08), 1.5e-3
# The rest of that error grows with the motion (1 sigma, share of the turn or of the move of like effect): rolling
# shutter, and points followed over a long way. Without it, frames of Red Kitchen thinned to every 2nd, 4th and 8th
# have normalised squared errors of motions of 9, 13 and 25 (median), and errors of a tenth of the turn.
_SHARE_OF_MOTION = 0.1


def stray_covariance(depth_m: float, steps: float = 1.0) -> Array:
    """(6, 6) covariance of a pose that was predicted by constant velocity.

    Args:
        depth_m: median depth of the scene.
        steps: frames of 30 Hz since the pose that it was predicted from.
    """
    stray_m = _STRAY_OF_DEPTH * depth_m
    return np.diag([(_STRAY_RAD * steps) ** 2] * 3 + [(stray_m * steps) ** 2] * 3)


def constant_velocity(
    last: tuple[int, SE3], before: tuple[int, SE3] | None, stamp_ns: int, depth_m: float
) -> tuple[SE3, Array]:
    """Predicted pose and its (6, 6) covariance.

    Args:
        last: stamp and pose of the last frame.
        before: those of a frame before that one; None = the camera is taken to stand still, and less is known.
        stamp_ns: of the frame to predict.
        depth_m: median depth of the scene.
    """
    last_ns, T = last
    gap_s = (stamp_ns - last_ns) * 1e-9
    steps = max(1.0, gap_s * _FRAMES_PER_S)
    if before is None:
        return T, stray_covariance(depth_m, steps * _STILL)
    before_ns, T_before = before
    motion = (T_before.inverse() @ T).log()
    fraction = gap_s * 1e9 / (last_ns - before_ns)
    return T @ SE3.exp(motion * fraction), stray_covariance(depth_m, steps)


def flow_covariance(solved: SolvedPose, depth_m: float) -> Array:
    """(6, 6) covariance of a motion found by optical flow, in its tangent.

    Args:
        solved: the motion and what supports it.
        depth_m: median depth of the scene.
    """
    motion = solved.T_map_refined.log()
    grown = _SHARE_OF_MOTION * np.hypot(np.linalg.norm(motion[:3]), np.linalg.norm(motion[3:]) / depth_m)
    turn, move = np.hypot(_LEAST_SIGMA_RAD, grown), np.hypot(_LEAST_SIGMA_OF_DEPTH, grown) * depth_m
    return solved.covariance + np.diag([turn**2] * 3 + [move**2] * 3)


def timing_covariance(T_prev_cur: SE3, elapsed_s: float, sigma_s: float) -> Array:
    """(6, 6) covariance of a pose whose time is not exactly that of its stamp.

    Args:
        T_prev_cur: motion of the camera.
        elapsed_s: in this time.
        sigma_s: standard deviation of the stamp.
    """
    moved = T_prev_cur.log() * (sigma_s / elapsed_s)
    return np.outer(moved, moved)
