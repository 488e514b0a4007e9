"""Points by inverse depth: where a camera sees them, and a camera from them.

A point lies on the ray of the keyframe that saw it first, its anchor, at one over its inverse depth (Civera et al.
2008): a point of unknown depth and one at infinity are numbers like any other, and a camera that only turns
sees both where they should be.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Index, Mask

# A followed corner is not better than this, px.
LEAST_SIGMA_PX = 0.3
# The median length of a 2D Gaussian error is this many sigma.
_MEDIAN_OF_LENGTH = 1.1774
# Of the depth in its anchor; a point nearer than this share of it is not projected.
_AHEAD = 0.02
# Common error of all depths that are assumed and not measured (1 sigma of their logarithm).
_ASSUMED = 1.0
_ITERATIONS, _STILL = 10, 1e-6
# Neighbouring corners share errors: so many of them count half.
_SHARED = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """N points.

    Attributes:
        origin: (N, 3) centre of each anchor in the world.
        ray: (N, 3) from there towards the point, as long as its depth is one.
        inverse_m: (N,) inverse depth, 1/m.
        sigma: (N,) of that.
        assumed: (N,) True where the depth is an assumption that nobody has measured.
    """

    origin: Array
    ray: Array
    inverse_m: Array
    sigma: Array
    assumed: Mask

    def some(self, keep: Mask | Index) -> Points:
        """Those chosen."""
        return Points(
            self.origin[keep], self.ray[keep], self.inverse_m[keep], self.sigma[keep], self.assumed[keep]
        )


@dataclass(frozen=True, slots=True, eq=False)
class SeenPose:
    """A camera by the points that it sees.

    Attributes:
        T: its pose in the world.
        covariance: (6, 6) in its tangent.
        inliers: (N,) which points agree.
    """

    T: SE3
    covariance: Array
    inliers: Mask


def seen_from(T: SE3, points: Points) -> Array:
    """(N, 3) points in the frame of a camera, each times its inverse depth: (x, y) / z is where it sees them."""
    return np.asarray((points.ray + points.inverse_m[:, None] * (points.origin - T.t)) @ T.R)


def projection(q: Array) -> tuple[Array, Array, Mask]:
    """(N, 2) on the plane z = 1, (N, 2, 3) its derivative by ``q`` (N, 3), and (N,) what lies ahead."""
    ahead = q[:, 2] > _AHEAD
    inverse_z = 1.0 / np.where(ahead, q[:, 2], 1.0)
    x, y = q[:, 0] * inverse_z, q[:, 1] * inverse_z
    P = np.zeros((len(q), 2, 3))
    P[:, 0, 0] = P[:, 1, 1] = inverse_z
    P[:, 0, 2], P[:, 1, 2] = -x * inverse_z, -y * inverse_z
    return np.stack([x, y], axis=1), P, ahead


def skews(v: Array) -> Array:
    """(N, 3, 3) matrices of cross products with (N, 3)."""
    S = np.zeros((len(v), 3, 3))
    S[:, 0, 1], S[:, 0, 2], S[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    S[:, 1, 0], S[:, 2, 0], S[:, 2, 1] = v[:, 2], -v[:, 1], v[:, 0]
    return S


def moved(T: SE3, step: Array) -> SE3:
    """``T`` after a small step in its tangent; the exponential map to first order, which iterations need no more of."""
    turn, _ = cv2.Rodrigues(step[:3])
    return SE3(T.R @ turn, T.t + T.R @ step[3:])


def seen_pose(T: SE3, rays: Array, points: Points, focal_px: float, max_error_px: float) -> SeenPose | None:
    """The camera that sees points on rays, by robust least squares (Cauchy); None where they leave it open.

    What the uncertain depth of a point explains is no error: residuals are whitened by it, which leaves the distance
    from the epipolar line. Depths that are only assumed have one common error besides, and that is solved for.

    Args:
        T: where to begin.
        rays: (N, 2) on the plane z = 1.
        points: N.
        focal_px: pixels per unit on that plane.
        max_error_px: of a point that agrees.
    """
    sigma_px = max_error_px / 3.0
    for _ in range(_ITERATIONS):
        J, r, error_px = _whitened(T, rays, points, focal_px, sigma_px)
        step = _step(J, r, error_px / sigma_px)
        if step is None or np.linalg.norm(step[:3]) > 1.0:
            return None
        T = moved(T, step[:6])
        sigma_px = float(np.clip(np.median(error_px) / _MEDIAN_OF_LENGTH, LEAST_SIGMA_PX, max_error_px / 3.0))
        if np.abs(step[:6]).max() < _STILL:
            break
    J, r, error_px = _whitened(T, rays, points, focal_px, sigma_px)
    inliers = error_px < max_error_px
    H, _ = _normal(J, r, np.where(inliers, 1.0 / (1.0 + (error_px / sigma_px / 2.0) ** 2), 0.0))
    values, vectors = np.linalg.eigh(H)
    if inliers.sum() < 4 or values[0] <= 1e-12 * values[-1]:
        return None
    covariance = ((vectors / values) @ vectors.T)[:6, :6] * (1.0 + inliers.sum() / _SHARED)
    return SeenPose(T, covariance, inliers)


def _whitened(
    T: SE3, rays: Array, points: Points, focal_px: float, sigma_px: float
) -> tuple[Array, Array, Array]:
    """Jacobian (N, 2, 7) by the tangent of T and the common error of assumed depths, residuals (N, 2), both over their
    sigma, and (N,) the errors that depths do not explain, px; infinite behind the camera."""
    q = seen_from(T, points)
    seen, P, ahead = projection(q)
    P = focal_px * P
    by_depth = np.einsum("nij,nj->ni", P, (points.origin - T.t) @ T.R)
    J = np.empty((len(q), 2, 7))
    J[:, :, :3] = P @ skews(q)
    J[:, :, 3:6] = -points.inverse_m[:, None, None] * P
    J[:, :, 6] = by_depth * np.where(points.assumed, points.inverse_m, 0.0)[:, None]
    r = focal_px * (seen - rays)
    # S = sigma_px^2 1 + b b^T has the inverse root (1 - k b b^T) / sigma_px.
    b = by_depth * points.sigma[:, None]
    squared = np.einsum("ni,ni->n", b, b)
    k = (1.0 - sigma_px / np.sqrt(sigma_px**2 + squared)) / np.maximum(squared, 1e-12)
    r = (r - (k * np.einsum("ni,ni->n", b, r))[:, None] * b) / sigma_px
    J = (J - (k[:, None] * b)[:, :, None] * np.einsum("ni,nij->nj", b, J)[:, None]) / sigma_px
    error_px = np.where(ahead, sigma_px * np.sqrt(np.einsum("ni,ni->n", r, r)), np.inf)
    return J, r, error_px


def _normal(J: Array, r: Array, weight: Array) -> tuple[Array, Array]:
    size = J.shape[2]
    weighted = (J * weight[:, None, None]).reshape(-1, size)
    H = weighted.T @ J.reshape(-1, size)
    H[6, 6] += 1.0 / _ASSUMED**2
    return H, weighted.T @ r.reshape(-1)


def _step(J: Array, r: Array, error: Array) -> Array | None:
    H, g = _normal(J, r, np.where(np.isfinite(error), 1.0 / (1.0 + (error / 2.0) ** 2), 0.0))
    H[np.diag_indices(7)] *= 1.0 + 1e-9
    try:
        step = -np.asarray(np.linalg.solve(H, g), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return step if np.all(np.isfinite(step)) else None
