"""Bundle adjustment with a prior on every pose, on the intrinsics, and on where the camera sits on the posed body.

Poses that come with a recording (depth camera, odometry, motion capture) are good where images say little, and wrong by
what images can see: a slow drift, a camera that is not where the poses are, a calibration from a data sheet. Priors in
all six degrees of freedom keep the first and let images correct the second; ``pycolmap`` adjusts with priors on
positions alone, which leaves rotations free where the camera hardly moves, and cannot find the extrinsics. Hence this
one: Levenberg-Marquardt, points eliminated by the Schur complement, Cauchy kernels (Triggs et al., "Bundle adjustment -
a modern synthesis", 1999).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.spatial.transform import RigidTransform

from localizer_ros.core.types import Array, Index, NumericalError
from localizer_ros.mapping.reduced_system import Bordered, Pattern, block_diagonal

logger = logging.getLogger(__name__)

# fx fy cx cy k1 k2 p1 p2
_INTRINSICS = 8
# Cauchy kernels, in sigmas: residuals beyond count by their logarithm.
_KEYPOINT_KERNEL = 1.5
# Given poses are rarely outliers; a narrow kernel would let whole stretches go.
_POSE_KERNEL = 30.0
# A point nearer than this to the camera, metres, has no projection worth the name: it counts as far off, and pulls at
# nothing.
_NEAREST_M, _TOO_NEAR = 0.05, 1e6
# Steps that are tried with more and more damping before an iteration is given up, and the share of the cost that an
# iteration must gain for another to be worth while.
_ATTEMPTS, _LEAST_GAIN = 7, 1e-3


@dataclass(frozen=True, eq=False)
class BundlePriors:
    """What is known beforehand; a sigma of zero fixes.

    Attributes:
        T_map_cam: (I, 4, 4) given poses.
        pose_sigma_rad: of their rotations.
        pose_sigma_m: of their positions.
        intrinsics_sigma: (8,) of fx fy cx cy (px) k1 k2 p1 p2.
        extrinsics_sigma_rad: of the rotation of ``T_cam_refined``.
        extrinsics_sigma_m: of its translation.
        keypoint_sigma_px: of an observation.
    """

    T_map_cam: Array
    pose_sigma_rad: float
    pose_sigma_m: float
    intrinsics_sigma: Array
    extrinsics_sigma_rad: float
    extrinsics_sigma_m: float
    keypoint_sigma_px: float


@dataclass(frozen=True, eq=False)
class BundleState:
    """What is adjusted.

    Attributes:
        T_map_refined: (I, 4, 4) poses of the images.
        points: (P, 3).
        intrinsics: (8,) fx fy cx cy k1 k2 p1 p2.
        T_cam_refined: (4, 4) extrinsics: the optical frame on the body whose poses were given.
    """

    T_map_refined: Array
    points: Array
    intrinsics: Array
    T_cam_refined: Array


def adjust(
    state: BundleState, image: Index, point: Index, xy_px: Array, priors: BundlePriors, iterations: int
) -> tuple[BundleState, Array]:
    """The state of least reprojection errors and prior terms, and (N,) reprojection errors in pixels.

    Args:
        state: where to start.
        image: (N,) of each observation.
        point: (N,) of each observation.
        xy_px: (N, 2) observed, in pixels of the ideal image of the given camera.
        priors: what is known.
        iterations: at most.

    Raises:
        NumericalError: the problem is singular from the start.
    """
    problem = _Problem(state, image, point, xy_px, priors)
    damping = 1e-4
    now = problem.evaluated(state)
    first_cost = now.cost
    for iteration in range(iterations):
        system = _System(problem, state, now)
        improved = False
        for _ in range(_ATTEMPTS):
            try:
                trial = system.step(state, damping)
            except np.linalg.LinAlgError:
                damping = max(damping, 1e-6) * 10.0
                continue
            then = problem.evaluated(trial)
            if np.isfinite(then.cost) and then.cost < now.cost:
                improved = True
                break
            damping = max(damping, 1e-6) * 8.0
        if not improved:
            if iteration == 0 and not np.isfinite(now.cost):
                raise NumericalError("bundle adjustment: the cost is not finite at the start")
            break
        gain = (now.cost - then.cost) / now.cost
        state, now, damping = trial, then, max(damping * 0.2, 1e-9)
        if gain < _LEAST_GAIN:
            break
    logger.debug("bundle adjustment: cost %.1f -> %.1f", first_cost, now.cost)
    return state, np.sqrt(now.squared) * priors.keypoint_sigma_px


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """Residuals of one state, in sigmas, and what their derivatives need."""

    cost: float
    in_camera: Array
    R: Array
    residual: Array
    J_projection: Array
    J_intrinsics: Array
    squared: Array
    pose_residual: Array
    pose_squared: Array
    extrinsics: Array


class _Problem:
    """Observations and priors: what stays the same while the state is adjusted."""

    def __init__(
        self, start: BundleState, image: Index, point: Index, xy_px: Array, priors: BundlePriors
    ) -> None:
        self.image, self.point, self.priors = image, point, priors
        self.pattern = Pattern(image, point, len(start.T_map_refined), len(start.points))
        self._xy_px = xy_px
        self.start_intrinsics = start.intrinsics
        # Of the intrinsics and the extrinsics, which all images share.
        self.shared_sigma = np.concatenate(
            [
                np.maximum(priors.intrinsics_sigma, 1e-9),
                np.full(3, max(priors.extrinsics_sigma_rad, 1e-9)),
                np.full(3, max(priors.extrinsics_sigma_m, 1e-9)),
            ]
        )
        self.pose_sigma = np.concatenate(
            [np.full(3, max(priors.pose_sigma_rad, 1e-7)), np.full(3, max(priors.pose_sigma_m, 1e-7))]
        )

    def evaluated(self, state: BundleState) -> _Evaluated:
        """Residuals and cost of a state."""
        priors = self.priors
        R = state.T_map_refined[self.image, :3, :3]
        p = np.einsum("nji,nj->ni", R, state.points[self.point] - state.T_map_refined[self.image, :3, 3])
        uv, J_projection, J_intrinsics = _projected(state.intrinsics, p)
        residual = (uv - self._xy_px) / priors.keypoint_sigma_px
        squared = np.einsum("ni,ni->n", residual, residual)
        squared[p[:, 2] < _NEAREST_M] = _TOO_NEAR
        pose_residual = (
            _log(np.linalg.inv(priors.T_map_cam @ state.T_cam_refined) @ state.T_map_refined)
            / self.pose_sigma
        )
        pose_squared = np.einsum("ni,ni->n", pose_residual, pose_residual)
        extrinsics = _log(state.T_cam_refined[None])[0]
        shared = np.concatenate([state.intrinsics - self.start_intrinsics, extrinsics]) / self.shared_sigma
        k, q = _KEYPOINT_KERNEL**2, _POSE_KERNEL**2
        cost = 0.5 * (
            k * float(np.log1p(squared / k).sum())
            + q * float(np.log1p(pose_squared / q).sum())
            + float(shared @ shared)
        )
        return _Evaluated(
            cost, p, R, residual, J_projection, J_intrinsics, squared, pose_residual, pose_squared, extrinsics
        )


class _System:
    """Normal equations of one linearisation; solved for any damping."""

    def __init__(self, problem: _Problem, state: BundleState, at: _Evaluated) -> None:
        self._pattern = pattern = problem.pattern
        weight = np.sqrt(1.0 / (1.0 + at.squared / _KEYPOINT_KERNEL**2))
        weight[at.in_camera[:, 2] < _NEAREST_M] = 0.0
        scaled = weight[:, None, None] / problem.priors.keypoint_sigma_px
        # T moves by Exp([w, v]) on the right: p in the camera moves by p x w - v.
        self._J_pose = (
            np.concatenate([at.J_projection @ _skew(at.in_camera), -at.J_projection], axis=2) * scaled
        )
        self._J_point = (at.J_projection @ at.R.transpose(0, 2, 1)) * scaled
        self._J_shared = at.J_intrinsics * scaled
        r = (at.residual * weight[:, None])[:, :, None]
        self._V = pattern.by_point(_transposed(self._J_point) @ self._J_point)
        self._g_point = pattern.by_point(_transposed(self._J_point) @ r)[:, :, 0]
        self._per_image, self._border, self._shared, self._g = self._normal_equations(problem, state, at, r)

    def _normal_equations(
        self, problem: _Problem, state: BundleState, at: _Evaluated, r: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Normal matrix of poses (C, 6, 6), of these with intrinsics and extrinsics (6 C, 14), of the latter (14, 14),
        and the gradient of poses, intrinsics and extrinsics, in this order."""
        pattern, K = self._pattern, _INTRINSICS
        C, J_pose = pattern.images, _transposed(self._J_pose)
        sigma, change = problem.shared_sigma, state.intrinsics - problem.start_intrinsics
        pose_weight = 1.0 / (1.0 + at.pose_squared / _POSE_KERNEL**2)
        information = pose_weight[:, None] / problem.pose_sigma**2
        pull = pose_weight[:, None] * at.pose_residual / problem.pose_sigma
        per_image = pattern.by_image(J_pose @ self._J_pose) + information[:, :, None] * np.eye(6)
        with_intrinsics = pattern.by_image(J_pose @ self._J_shared).reshape(6 * C, K)
        # A change of the extrinsics moves all given poses at once; the residual sees the difference.
        coupling = -(information[:, :, None] * np.eye(6)).reshape(6 * C, 6)
        flat = self._J_shared.reshape(-1, K)
        shared = np.diag(1.0 / sigma**2)
        shared[:K, :K] += flat.T @ flat
        shared[K:, K:] += np.diag(information.sum(axis=0))
        gradient = pattern.by_image(J_pose @ r)[:, :, 0] + pull
        g_intrinsics = flat.T @ r.reshape(-1) + change / sigma[:K] ** 2
        g_extrinsics = at.extrinsics / sigma[K:] ** 2 - pull.sum(axis=0)
        g = np.concatenate([gradient.reshape(-1), g_intrinsics, g_extrinsics])
        return per_image, np.concatenate([with_intrinsics, coupling], axis=1), shared, g

    def step(self, state: BundleState, damping: float) -> BundleState:
        """The state after one damped step. Raises LinAlgError when the system is singular."""
        pattern, K = self._pattern, _INTRINSICS
        C, P = pattern.images, pattern.points
        own = 6 * C + K
        trace = np.maximum(np.einsum("nii->n", self._V), 1e-9)
        V = self._V + (damping * trace + 1e-12)[:, None, None] * np.eye(3)
        # V^-1 = L^T L; with the points' Jacobian times L^T their elimination is a plain product.
        L = np.linalg.inv(np.linalg.cholesky(V))
        J_point = self._J_point @ _transposed(L)[pattern.point]
        W = pattern.matrix(_transposed(self._J_pose) @ J_point)
        W_shared = pattern.by_point(_transposed(self._J_shared) @ J_point).transpose(1, 0, 2).reshape(K, -1)
        border, shared = self._border.copy(), self._shared.copy()
        border[:, :K] -= W @ W_shared.T
        shared[:K, :K] -= W_shared @ W_shared.T
        l_g = np.einsum("nij,nj->ni", L, self._g_point).reshape(-1)
        right = -self._g
        right[: 6 * C] += W @ l_g
        right[6 * C : own] += W_shared @ l_g
        images = scipy.sparse.bsr_array(block_diagonal(self._per_image) - W @ W.T)
        step = Bordered(images, border, shared).solved(right, damping)
        back = (l_g + W.T @ step[: 6 * C] + W_shared.T @ step[6 * C : own]).reshape(P, 3)
        return BundleState(
            state.T_map_refined @ _exp(step[: 6 * C].reshape(C, 6)),
            state.points - np.einsum("nji,nj->ni", L, back),
            state.intrinsics + step[6 * C : own],
            state.T_cam_refined @ _exp(step[own:][None])[0],
        )


def _transposed(blocks: Array) -> Array:
    return blocks.transpose(0, 2, 1)


def _projected(intrinsics: Array, p: Array) -> tuple[Array, Array, Array]:
    """Pixels (N, 2) of points in the camera, and their Jacobians by point (N, 2, 3) and by intrinsics (N, 2, 8)."""
    fx, fy, cx, cy, k1, k2, p1, p2 = intrinsics
    inverse_z = 1.0 / np.where(np.abs(p[:, 2]) > 1e-6, p[:, 2], 1e-6)
    x, y = p[:, 0] * inverse_z, p[:, 1] * inverse_z
    r2 = x * x + y * y
    radial = 1.0 + k1 * r2 + k2 * r2 * r2
    u = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    v = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
    slope = k1 + 2.0 * k2 * r2
    ux = radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    uy = 2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
    vy = radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x
    by_point = np.empty((len(p), 2, 3))
    by_point[:, 0, 0], by_point[:, 0, 1] = fx * ux * inverse_z, fx * uy * inverse_z
    by_point[:, 0, 2] = -fx * (ux * x + uy * y) * inverse_z
    by_point[:, 1, 0], by_point[:, 1, 1] = fy * uy * inverse_z, fy * vy * inverse_z
    by_point[:, 1, 2] = -fy * (uy * x + vy * y) * inverse_z
    by_intrinsics = np.zeros((len(p), 2, _INTRINSICS))
    by_intrinsics[:, 0, 0], by_intrinsics[:, 1, 1] = u, v
    by_intrinsics[:, 0, 2] = by_intrinsics[:, 1, 3] = 1.0
    by_intrinsics[:, 0, 4], by_intrinsics[:, 1, 4] = fx * x * r2, fy * y * r2
    by_intrinsics[:, 0, 5], by_intrinsics[:, 1, 5] = fx * x * r2 * r2, fy * y * r2 * r2
    by_intrinsics[:, 0, 6], by_intrinsics[:, 1, 6] = 2.0 * fx * x * y, fy * (r2 + 2.0 * y * y)
    by_intrinsics[:, 0, 7], by_intrinsics[:, 1, 7] = fx * (r2 + 2.0 * x * x), 2.0 * fy * x * y
    return np.stack([fx * u + cx, fy * v + cy], axis=1), by_point, by_intrinsics


def _skew(v: Array) -> Array:
    S = np.zeros((len(v), 3, 3))
    S[:, 0, 1], S[:, 0, 2], S[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    S[:, 1, 0], S[:, 2, 0], S[:, 2, 1] = v[:, 2], -v[:, 1], v[:, 0]
    return S


def _exp(xi: Array) -> Array:
    return np.asarray(RigidTransform.from_exp_coords(xi).as_matrix())


def _log(T: Array) -> Array:
    return np.asarray(RigidTransform.from_matrix(T).as_exp_coords())
