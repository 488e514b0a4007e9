"""How differently two cameras look at a scene: a turn counts as its angle, a move as the angle that it is seen under.

A move of a tenth of the median depth shifts what is seen there as far as a turn of a tenth of a radian, so both add up
to one number that means the same in a cupboard and in a hall.
"""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array


def view_distances(poses: Array, T_map_cam: SE3, depth_m: float) -> Array:
    """(I,) view distances of I cameras from another one, radians.

    Args:
        poses: (I, 4, 4) camera poses in the map.
        T_map_cam: pose of the other camera.
        depth_m: median depth of the scene.
    """
    move = np.linalg.norm(poses[:, :3, 3] - T_map_cam.t, axis=1) / depth_m
    cosine = 0.5 * (np.einsum("nij,ij->n", poses[:, :3, :3], T_map_cam.R) - 1.0)
    return np.asarray(np.hypot(move, np.arccos(np.clip(cosine, -1.0, 1.0))))


def view_vectors(poses: Array, reach_m: float, reach_rad: float = 1.0) -> Array:
    """(I, 12) vectors whose Euclidean distances are nearly the view distances of the cameras, for what needs a norm.

    |R1 - R2| is the square root of 2 times the angle between two rotations while that is small; at a right angle it is
    a tenth too short.

    Args:
        poses: (I, 4, 4) camera poses in the map.
        reach_m: a move of this length counts 1; the median depth for view distances in radians.
        reach_rad: a turn by this angle counts 1.
    """
    turn = poses[:, :3, :3].reshape(-1, 9) / (np.sqrt(2.0) * reach_rad)
    return np.concatenate([poses[:, :3, 3] / reach_m, turn], axis=1)
