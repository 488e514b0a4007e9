"""How a camera moved between two images, up to the length of the move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Mask

# Largest distance of an inlier from its epipolar line, px, and iterations of RANSAC at least and at most.
_EPIPOLAR_PX, _ITERATIONS = 2.0, (50, 2000)


@dataclass(frozen=True, slots=True, eq=False)
class TwoViews:
    """A relative pose.

    Attributes:
        T_a_b: pose of the second camera in the first, its translation of length one.
        inliers: (N,) which matches agree.
        parallax_rad: median angle between the rays of a match once the turn is undone; near zero the direction of the
            move is unknown.
    """

    T_a_b: SE3
    inliers: Mask
    parallax_rad: float


def relative_pose(rays_a: Array, rays_b: Array, focal_px: float, fewest: int, seed: int) -> TwoViews | None:
    """The move between two images by their matches; None where fewer than ``fewest`` agree on one.

    Args:
        rays_a: (N, 2) of the matched keypoints of the one, plane z = 1.
        rays_b: (N, 2) those of the other.
        focal_px: pixels per unit on that plane.
        fewest: matches that must agree.
        seed: of RANSAC.
    """
    if len(rays_a) < fewest:
        return None
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal_px, 0.0, 0.0]}
    options = {
        "max_epipolar_error": _EPIPOLAR_PX,
        "min_iterations": _ITERATIONS[0],
        "max_iterations": _ITERATIONS[1],
        "seed": seed,
    }
    pose, report = poselib.estimate_relative_pose(
        rays_a * focal_px, rays_b * focal_px, camera, camera, options, {}
    )
    inliers = np.asarray(report["inliers"], dtype=bool)
    if int(inliers.sum()) < fewest:
        return None
    R_b_a, t = np.asarray(pose.R, dtype=np.float64), np.asarray(pose.t, dtype=np.float64)
    length = float(np.linalg.norm(t))
    if not np.isfinite(length) or length < 1e-12:
        return None
    turned = _unit(rays_a[inliers]) @ R_b_a.T
    sine = np.linalg.norm(np.cross(turned, _unit(rays_b[inliers])), axis=1)
    parallax = float(np.median(np.arcsin(np.clip(sine, 0.0, 1.0))))
    return TwoViews(SE3(R_b_a, t / length).inverse(), inliers, parallax)


def _unit(rays: Array) -> Array:
    full = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return np.asarray(full / np.linalg.norm(full, axis=1, keepdims=True))
