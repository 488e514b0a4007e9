"""A camera's pose from its relative poses to several cameras that are known, without a single point in space.

An essential matrix gives a rotation and the direction of a baseline. The rotations are averaged, and the camera is
where the directions from the known cameras meet, which is where the scale comes from. The pose is then refined on the
distances of all matches from their epipolar lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3, weighted_mean
from localizer_ros.core.types import Array

# Relative poses that differ by more do not agree. Essential matrices of few matches err by some degrees.
_AGREEING_RAD = np.radians(8.0)
# A weak pull between the cameras decides along directions that are all parallel.
_PULL = 1e-3
# A direction is a pixel or two off, but the model behind it is not perfect: beyond this error (tangent) it counts less.
_DIRECTION_ERROR = 0.1
# A camera nearer than this share of the depth would outweigh all others.
_NEAREST_OF_DEPTH = 0.02
# Cauchy's width of refinement, and the largest error of an inlier of it, px.
_WIDTH_PX, _INLIER_PX = 1.5, 4.0
# Variance of the error of an inlier is never less than this, px^2: no keypoint is better than half a pixel.
_LEAST_VARIANCE_PX2 = 0.25
# Keypoints on one image share its pose's error: so many of them count half.
_SHARED = 100.0
# Step of numerical derivatives, rad and shares of the depth, and the length of a step that is the last.
_STEP, _STILL = 1e-6, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class KnownView:
    """A camera with a known pose, and its matches with the camera whose pose is wanted.

    Attributes:
        T_map_db: its pose.
        T_db_query: pose of the wanted camera in it, its translation of any length.
        rays_db: (N, 2) matched keypoints on the plane z = 1.
        rays_query: (N, 2) the same of the wanted camera.
    """

    T_map_db: SE3
    T_db_query: SE3
    rays_db: Array
    rays_query: Array

    def __len__(self) -> int:
        return len(self.rays_db)


@dataclass(frozen=True, slots=True, eq=False)
class RefinedPose:
    """A pose on epipolar lines.

    Attributes:
        T_map_query: the pose.
        covariance: (6, 6) in its tangent.
        inliers: number of matches that agree.
    """

    T_map_query: SE3
    covariance: Array
    inliers: int


def meeting_pose(views: Sequence[KnownView], depth_m: float) -> tuple[SE3, list[int]] | None:
    """Mean rotation and the point nearest to the baselines, and the largest set of views that agree, which they are of.

    None where no two agree.

    Args:
        views: at least two.
        depth_m: median depth of the scene.
    """
    count = np.array([len(view) for view in views])
    rotations = [view.T_map_db.R @ view.T_db_query.R for view in views]
    angle = np.array(
        [[SE3(p, np.zeros(3)).angle_to(SE3(q, np.zeros(3))) for q in rotations] for p in rotations]
    )
    support = (angle < _AGREEING_RAD).astype(float) @ count
    centre = int(support.argmax())
    agreeing = [int(i) for i in np.nonzero(angle[centre] < _AGREEING_RAD)[0]]
    if len(agreeing) < 2:
        return None
    R = weighted_mean([SE3(rotations[i], np.zeros(3)) for i in agreeing], count[agreeing]).R
    return SE3(R, _meeting_point([views[i] for i in agreeing], depth_m)), agreeing


def _meeting_point(views: Sequence[KnownView], depth_m: float) -> Array:
    count = np.array([len(view) for view in views])
    origin = np.stack([view.T_map_db.t for view in views])
    direction = np.stack([view.T_map_db.R @ view.T_db_query.t for view in views])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    t = origin.mean(axis=0)
    pull = _PULL / depth_m**2 * np.eye(3)
    for _ in range(10):
        offset = np.einsum("nij,nj->ni", across, t - origin)
        distance = np.maximum(np.linalg.norm(t - origin, axis=1), _NEAREST_OF_DEPTH * depth_m)
        error = np.linalg.norm(offset, axis=1) / distance
        weight = count / count.sum() / (1.0 + (error / _DIRECTION_ERROR) ** 2) / distance**2
        A = np.einsum("n,nij->ij", weight, across) + pull
        t = np.linalg.solve(A, np.einsum("n,nij,nj->i", weight, across, origin) + pull @ origin.mean(axis=0))
    return np.asarray(t)


def refine_on_epipolar_lines(
    start: SE3, views: Sequence[KnownView], focal_px: float, depth_m: float, min_inliers: int
) -> RefinedPose | None:
    """Robust least squares on the distances from epipolar lines; None where they leave the pose open.

    Args:
        start: pose near the truth.
        views: at least two.
        focal_px: pixels per unit on the plane z = 1.
        depth_m: median depth of the scene.
        min_inliers: fewer are no answer.
    """
    lines = _LineErrors(views, focal_px)
    T = start
    step_of = np.array([_STEP] * 3 + [_STEP * depth_m] * 3)
    for _ in range(12):
        r = lines.errors_px(T)
        J = np.stack(
            [(lines.errors_px(T @ SE3.exp(np.eye(6)[k] * step_of[k])) - r) / step_of[k] for k in range(6)],
            axis=1,
        )
        weight = 1.0 / (1.0 + (r / _WIDTH_PX) ** 2)
        H = (J * weight[:, None]).T @ J
        H[np.diag_indices(6)] *= 1.0 + 1e-6
        try:
            step = -np.linalg.solve(H, (J * weight[:, None]).T @ r)
        except np.linalg.LinAlgError:
            return None
        if not np.all(np.isfinite(step)) or np.linalg.norm(step[:3]) > 0.5:
            return None
        T = T @ SE3.exp(step)
        if np.abs(step).max() < _STILL:
            break
    inliers = np.abs(r) < _INLIER_PX
    count = int(inliers.sum())
    if count < min_inliers:
        return None
    variance = max(float(np.mean(r[inliers] ** 2)), _LEAST_VARIANCE_PX2) * (1.0 + count / _SHARED)
    return RefinedPose(T, np.asarray(np.linalg.inv(H) * variance), count)


class _LineErrors:
    """Distances of the query's keypoints from the epipolar lines of what they were matched with."""

    def __init__(self, views: Sequence[KnownView], focal_px: float) -> None:
        owner = np.repeat(np.arange(len(views)), [len(view) for view in views])
        one = np.ones((len(owner), 1))
        rays_db = np.concatenate([np.concatenate([view.rays_db for view in views]), one], axis=1)
        self._query = np.concatenate([np.concatenate([view.rays_query for view in views]), one], axis=1)
        self._centre = np.stack([view.T_map_db.t for view in views])[owner]
        R_map_db = np.stack([view.T_map_db.R for view in views])[owner]
        self._ray_map = np.einsum("nij,nj->ni", R_map_db, rays_db)
        self._focal_px = focal_px

    def errors_px(self, T_map_query: SE3) -> Array:
        """(N,) signed, for a pose of the query."""
        # The line of a ray in the query: (its camera's centre seen from the query) x (the ray in the query).
        line = np.cross((self._centre - T_map_query.t) @ T_map_query.R, self._ray_map @ T_map_query.R)
        normal = np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-9)
        return np.asarray(self._focal_px * np.einsum("ni,ni->n", line, self._query) / normal)
