"""Keyframes and points together: bundle adjustment of a short window, depths eliminated (Schur complement).

A point has one unknown, its inverse depth, so that eliminating it is a division, and what is left are some forty
unknowns: a window is solved in milliseconds without any library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Index
from localizer_ros.localization.visual_odometry.points import (
    LEAST_SIGMA_PX,
    moved,
    projection,
    skews,
)

_ITERATIONS = 5
# Width of the kernel (Cauchy), px.
_WIDTH_PX = 0.5
# Inverse depths stay above this share of the assumed one: a thousand times as far is infinity to any camera.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """M sightings of N points by K keyframes, anchors' own not among them.

    Attributes:
        keyframe: (M,) that sees.
        point: (M,) that is seen, ascending.
        rays: (M, 2) where, on the plane z = 1.
        anchor: (N,) keyframe of each point's ray.
        anchor_rays: (N, 2) those rays.
        prior: (N,) inverse depth that each point is known to have otherwise, 1/m.
        prior_sigma: (N,) of that; wide where it is an assumption.
    """

    keyframe: Index
    point: Index
    rays: Array
    anchor: Index
    anchor_rays: Array
    prior: Array
    prior_sigma: Array


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """The window as it fits best.

    Attributes:
        poses: K keyframes.
        inverse_m: (N,) inverse depths, 1/m.
        sigma: (N,) of those, 1/m.
        covariance: (6 F, 6 F) of the F keyframes that were free, in their tangents.
        error_px: (M,) of the sightings; infinite behind the camera.
    """

    poses: list[SE3]
    inverse_m: Array
    sigma: Array
    covariance: Array
    error_px: Array


def adjusted(
    poses: list[SE3], fixed: int, inverse_m: Array, sightings: Sightings, focal_px: float
) -> Adjusted | None:
    """The window after some steps of Gauss and Newton, None where it cannot be solved.

    Args:
        poses: K keyframes; the first ``fixed`` stay where they are.
        fixed: at least one.
        inverse_m: (N,) where to begin.
        sightings: of the points.
        focal_px: pixels per unit on the plane z = 1.
    """
    least = _LEAST_SHARE * float(np.median(sightings.prior))
    best: tuple[list[SE3], Array] | None = None
    best_cost = np.inf
    for _ in range(_ITERATIONS):
        system = _linearised(poses, fixed, inverse_m, sightings, focal_px)
        if system.cost > best_cost * (1.0 - 1e-4):
            break
        best, best_cost = (poses, inverse_m), system.cost
        solved = _solved(system)
        if solved is None:
            return None
        step, by_depth = solved
        poses = poses[:fixed] + [moved(T, step[6 * i : 6 * i + 6]) for i, T in enumerate(poses[fixed:])]
        inverse_m = np.maximum(inverse_m + by_depth, least)
    assert best is not None
    system = _linearised(best[0], fixed, best[1], sightings, focal_px)
    inverse = _inverse(system.reduced())
    if inverse is None:
        return None
    across = system.W / system.h[:, None]
    sigma = np.sqrt(1.0 / system.h + np.einsum("ni,ij,nj->n", across, inverse, across))
    return Adjusted(best[0], best[1], sigma, inverse, system.error_px)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """Normal equations: H, g of the free poses, h, b of the depths, W (N, 6F) between them."""

    H: Array
    g: Array
    h: Array
    b: Array
    W: Array
    cost: float
    error_px: Array

    def reduced(self) -> Array:
        """Information of the poses once the depths are eliminated."""
        return np.asarray(self.H - (self.W / self.h[:, None]).T @ self.W)


def _linearised(poses: list[SE3], fixed: int, inverse_m: Array, s: Sightings, focal_px: float) -> _System:
    R, t = np.stack([T.R for T in poses]), np.stack([T.t for T in poses])
    size, count = 6 * (len(poses) - fixed), len(inverse_m)
    a, c = s.anchor[s.point], s.keyframe
    rho = inverse_m[s.point]
    m = np.concatenate([s.anchor_rays, np.ones((count, 1))], axis=1)[s.point]
    R_c_a = np.einsum("nji,njk->nik", R[c], R[a])
    baseline = np.einsum("nji,nj->ni", R[c], t[a] - t[c])
    q = np.einsum("nij,nj->ni", R_c_a, m) + rho[:, None] * baseline
    seen, P, ahead = projection(q)
    r = (seen - s.rays) * (focal_px / LEAST_SIGMA_PX)
    P = P * (focal_px / LEAST_SIGMA_PX)
    error_px = np.where(ahead, LEAST_SIGMA_PX * np.linalg.norm(r, axis=1), np.inf)
    root = np.sqrt(np.where(ahead, 1.0 / (1.0 + (error_px / _WIDTH_PX) ** 2), 0.0))
    r, P = root[:, None] * r, root[:, None, None] * P
    J = np.zeros((len(c), 2, 6 * len(poses)))
    rows = np.arange(len(c))[:, None]
    columns = np.arange(6)[None, :]
    J[rows, :, 6 * c[:, None] + columns] = np.concatenate(
        [P @ skews(q), -rho[:, None, None] * P], axis=2
    ).transpose(0, 2, 1)
    through = P @ R_c_a
    J[rows, :, 6 * a[:, None] + columns] = np.concatenate(
        [-through @ skews(m), rho[:, None, None] * through], axis=2
    ).transpose(0, 2, 1)
    J = J[:, :, 6 * fixed :]
    by_depth = np.einsum("nij,nj->ni", P, baseline)
    flat = J.reshape(2 * len(c), size)
    h = np.bincount(s.point, np.einsum("ni,ni->n", by_depth, by_depth), count) + 1.0 / s.prior_sigma**2
    off = (inverse_m - s.prior) / s.prior_sigma
    b = np.bincount(s.point, np.einsum("ni,ni->n", by_depth, r), count) + off / s.prior_sigma
    W = np.zeros((count, size))
    np.add.at(W, s.point, np.einsum("ni,nij->nj", by_depth, J))
    spread = (LEAST_SIGMA_PX / _WIDTH_PX) ** 2
    finite = np.where(ahead, error_px, 50.0)
    cost = float(np.log1p((finite / _WIDTH_PX) ** 2).sum() / spread + (off**2).sum())
    return _System(flat.T @ flat, flat.T @ r.reshape(-1), h, b, W, cost, error_px)


def _solved(system: _System) -> tuple[Array, Array] | None:
    """Steps of the poses and of the depths."""
    S = system.reduced()
    S[np.diag_indices(len(S))] *= 1.0 + 1e-6
    try:
        step = -np.asarray(np.linalg.solve(S, system.g - system.W.T @ (system.b / system.h)), np.float64)
    except np.linalg.LinAlgError:
        return None
    if not np.all(np.isfinite(step)):
        return None
    return step, -(system.b + system.W @ step) / system.h


def _inverse(S: Array) -> Array | None:
    values, vectors = np.linalg.eigh(0.5 * (S + S.T))
    if np.any(values <= 0.0):
        return None
    return np.asarray((vectors / values) @ vectors.T)
