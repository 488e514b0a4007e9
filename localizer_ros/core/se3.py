"""Rigid transforms ``T_a_b`` and their covariances.

The tangent is GTSAM's: ``T · Exp([w, v])`` with the rotation part w (rad) first and the translation part v (m), both in
the body frame b. Exponential and logarithm are written out in plain numbers: a frame takes dozens of them, and calls of
arrays so small take fifty times as long as their arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from localizer_ros.core.arrays import Array

FARTHEST_M = 1e9
"""No robot is farther from any origin (the Earth's centre is 6.4e6 m away): a larger number is a damaged one."""

# Two decimals a value, the fewest that anyone writes, change the norm by at most 0.01.
_QUATERNION_NORM = 0.02
# Angle below which coefficients that divide by it are their series to the second order: exact to 1e-16 there.
_SMALL_RAD = 1e-3

Vector = tuple[float, float, float]


def skew(v_3: ArrayLike) -> Array:
    """(3, 3) matrix with ``skew(v) @ x == cross(v, x)``."""
    x, y, z = np.asarray(v_3, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


@dataclass(frozen=True, slots=True, eq=False)
class SE3:
    """Pose of frame b in frame a: ``p_a = R @ p_b + t``.

    Attributes:
        R: (3, 3) float64 rotation ``R_a_b``.
        t: (3,) float64 translation ``t_a_b``, metres.
    """

    R: Array
    t: Array

    @staticmethod
    def identity() -> SE3:
        """The identity; a value to start products from, never a stand-in for an unknown pose."""
        return SE3(np.eye(3), np.zeros(3))

    @staticmethod
    def from_matrix(T: ArrayLike, tolerance: float = 0.02) -> SE3:
        """From a (4, 4) or (3, 4) matrix; the rotation is projected to the nearest one.

        Raises:
            ValueError: wrong shape, a value that is not finite, a bottom row other than 0 0 0 1, or a rotation part
                further than ``tolerance`` (Frobenius) from a rotation.
        """
        matrix = np.asarray(T, dtype=np.float64)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"pose matrix: expected 4x4 or 3x4, got {matrix.shape}")
        if not np.all(np.isfinite(matrix)):
            raise ValueError("pose matrix: a value is not finite")
        if np.max(np.abs(matrix[:3, 3])) > FARTHEST_M:
            raise ValueError(f"pose matrix: a position beyond {FARTHEST_M:g} m")
        if matrix.shape == (4, 4) and not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), atol=1e-6):
            raise ValueError(f"pose matrix: expected bottom row 0 0 0 1, got {matrix[3].tolist()}")
        u, _, vt = np.linalg.svd(matrix[:3, :3])
        R = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
        distance = float(np.linalg.norm(R - matrix[:3, :3]))
        if distance > tolerance:
            raise ValueError(f"pose matrix: rotation part is {distance:.3g} away from a rotation")
        return SE3(R, matrix[:3, 3].copy())

    @staticmethod
    def from_quaternion(t_a_b: ArrayLike, q_a_b_xyzw: ArrayLike) -> SE3:
        """From a translation and a quaternion (x, y, z, w) of any positive norm.

        Raises:
            ValueError: a value is not finite, or the quaternion is zero.
        """
        t = np.asarray(t_a_b, dtype=np.float64)
        q = np.asarray(q_a_b_xyzw, dtype=np.float64)
        if t.shape != (3,) or q.shape != (4,) or not (np.all(np.isfinite(t)) and np.all(np.isfinite(q))):
            raise ValueError("pose: expected 3 finite translation and 4 finite quaternion values")
        if np.max(np.abs(t)) > FARTHEST_M:
            raise ValueError(f"pose: a position beyond {FARTHEST_M:g} m")
        if np.linalg.norm(q) < 1e-6:
            raise ValueError("pose: quaternion is zero")
        return SE3(_matrix(*q.tolist()), t.copy())

    @staticmethod
    def from_unit_quaternion(t_a_b: ArrayLike, q_a_b_xyzw: ArrayLike) -> SE3:
        """As :meth:`from_quaternion`, of values that somebody recorded as a rotation.

        Raises:
            ValueError: as there, or the norm is further from one than rounding takes it: no quaternion, or its values
                in another order than thought.
        """
        T = SE3.from_quaternion(t_a_b, q_a_b_xyzw)
        norm = float(np.linalg.norm(np.asarray(q_a_b_xyzw, dtype=np.float64)))
        if abs(norm - 1.0) > _QUATERNION_NORM:
            raise ValueError(f"pose: quaternion has norm {norm:.4g}, expected 1")
        return T

    @staticmethod
    def exp(xi_6: ArrayLike) -> SE3:
        """Exponential of a twist [w (rad), v (m)]."""
        *w, vx, vy, vz = np.asarray(xi_6, dtype=np.float64).tolist()
        square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
        angle = math.sqrt(square)
        if angle < _SMALL_RAD:
            b, c = 0.5 - square / 24.0, 1.0 / 6.0 - square / 120.0
        else:
            half = math.sin(0.5 * angle)
            b, c = 2.0 * half * half / square, (angle - math.sin(angle)) / (square * angle)
        v = (vx, vy, vz)
        return SE3(_turn(*w), np.array(_moved_along(v, (w[0], w[1], w[2]), b, c)))

    def log(self) -> Array:
        """(6,) twist [w (rad), v (m)] with ``SE3.exp(T.log())`` equal to T; ``|w| <= π``."""
        w = _turn_vector(self.R)
        square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
        angle = math.sqrt(square)
        if angle < _SMALL_RAD:
            c = 1.0 / 12.0 + square / 720.0
        else:
            c = (1.0 - 0.5 * angle * math.cos(0.5 * angle) / math.sin(0.5 * angle)) / square
        x, y, z = self.t.tolist()
        return np.array([*w, *_moved_along((x, y, z), w, -0.5, c)])

    def matrix(self) -> Array:
        """(4, 4) homogeneous matrix."""
        T = np.eye(4)
        T[:3, :3] = self.R
        T[:3, 3] = self.t
        return T

    def quaternion_xyzw(self) -> Array:
        """(4,) unit quaternion with w >= 0."""
        return np.array(_quaternion(self.R))

    def inverse(self) -> SE3:
        """``T_b_a``."""
        return SE3(self.R.T, -self.R.T @ self.t)

    @overload
    def __matmul__(self, other: SE3) -> SE3: ...
    @overload
    def __matmul__(self, other: Array) -> Array: ...
    def __matmul__(self, other: SE3 | Array) -> SE3 | Array:
        """``T_a_b @ T_b_c`` is ``T_a_c``; ``T_a_b @ p_b`` maps points of shape (3,) or (N, 3)."""
        if isinstance(other, SE3):
            return SE3(self.R @ other.R, self.R @ other.t + self.t)
        return np.asarray(other) @ self.R.T + self.t

    def adjoint(self) -> Array:
        """(6, 6) with ``T @ exp(xi) == exp(T.adjoint() @ xi) @ T``."""
        adjoint = np.zeros((6, 6))
        adjoint[:3, :3] = self.R
        adjoint[3:, 3:] = self.R
        adjoint[3:, :3] = skew(self.t) @ self.R
        return adjoint

    def angle_to(self, other: SE3) -> float:
        """Angle between the two rotations, radians."""
        R = self.R.T @ other.R
        # atan2 of sine and cosine is accurate at 0 and at π, where arccos of the trace is not.
        sine = 0.5 * float(np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]))
        return float(np.arctan2(sine, 0.5 * (np.trace(R) - 1.0)))

    def shifted(self, offset_m: ArrayLike) -> SE3:
        """The same orientation, the origin moved by ``offset_m`` (3,) along the axes of the parent frame."""
        return SE3(self.R, self.t + np.asarray(offset_m, dtype=np.float64))

    def distance_to(self, other: SE3) -> float:
        """Distance between the two origins, metres."""
        return float(np.linalg.norm(self.t - other.t))


def interpolate(T_a_b0: SE3, T_a_b1: SE3, fraction: float) -> SE3:
    """Pose on the geodesic from b0 (``fraction`` 0) to b1 (1): slerp of rotation, straight line of the origin."""
    x, y, z = _turn_vector(T_a_b0.R.T @ T_a_b1.R)
    R = T_a_b0.R @ _turn(fraction * x, fraction * y, fraction * z)
    return SE3(R, (1.0 - fraction) * T_a_b0.t + fraction * T_a_b1.t)


def weighted_mean(poses: Sequence[SE3], weights: ArrayLike | None = None) -> SE3:
    """Weighted mean of origins and of rotations (chordal L2, Markley 2007).

    Raises:
        ValueError: no poses, or weights that are not positive in sum.
    """
    if not poses:
        raise ValueError("weighted_mean: no poses")
    w = np.ones(len(poses)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(poses),) or not np.all(np.isfinite(w)) or w.sum() <= 0.0:
        raise ValueError("weighted_mean: expected one finite weight a pose with a positive sum")
    t = np.einsum("n,ni->i", w, np.stack([T.t for T in poses])) / w.sum()
    # Signed weights (barycentric interpolation) are allowed, so the rotation is the projected weighted sum.
    u, _, vt = np.linalg.svd(np.einsum("n,nij->ij", w, np.stack([T.R for T in poses])))
    return SE3(u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt, t)


def compose_covariance(S_a_b: Array, T_b_c: SE3, S_b_c: Array | None = None) -> Array:
    """Covariance of ``T_a_c = T_a_b @ T_b_c`` from those of its independent factors.

    Args:
        S_a_b: (6, 6) covariance of ``T_a_b``.
        T_b_c: the second factor.
        S_b_c: (6, 6) covariance of ``T_b_c``; None when it is known exactly (a calibration).
    """
    adjoint = T_b_c.inverse().adjoint()
    S = adjoint @ S_a_b @ adjoint.T
    return S if S_b_c is None else S + S_b_c


def inverse_covariance(T_a_b: SE3, S_a_b: Array) -> Array:
    """Covariance of ``T_b_a`` from that of ``T_a_b``."""
    adjoint = T_a_b.adjoint()
    return adjoint @ S_a_b @ adjoint.T


def covariance_to_ros(T_a_b: SE3, S_a_b: Array) -> Array:
    """(6, 6) covariance as in geometry_msgs/PoseWithCovariance: [x y z, rotation about the fixed axes of a].

    ``J = [[0, R], [R, 0]]``, ``S_ros = J S J^T``.
    """
    J = np.zeros((6, 6))
    J[:3, 3:] = T_a_b.R
    J[3:, :3] = T_a_b.R
    return J @ S_a_b @ J.T


def covariance_from_ros(T_a_b: SE3, S_ros: Array) -> Array:
    """Inverse of :func:`covariance_to_ros`."""
    J = np.zeros((6, 6))
    J[:3, 3:] = T_a_b.R.T
    J[3:, :3] = T_a_b.R.T
    return J @ S_ros @ J.T


def symmetrized(S: Array, floor: float = 0.0) -> Array:
    """The nearest symmetric matrix with eigenvalues of at least ``floor``."""
    values, vectors = np.linalg.eigh(0.5 * (S + S.T))
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)


# --- rotations in plain numbers ---


def _moved_along(v: Vector, w: Vector, b: float, c: float) -> Vector:
    """``v + b w x v + c w x (w x v)``."""
    (vx, vy, vz), (wx, wy, wz) = v, w
    x, y, z = wy * vz - wz * vy, wz * vx - wx * vz, wx * vy - wy * vx
    return (
        vx + b * x + c * (wy * z - wz * y),
        vy + b * y + c * (wz * x - wx * z),
        vz + b * z + c * (wx * y - wy * x),
    )


def _turn(x: float, y: float, z: float) -> Array:
    """(3, 3) rotation of a rotation vector, rad."""
    half = 0.5 * math.sqrt(x * x + y * y + z * z)
    # Sine of the half angle over the angle.
    s = 0.5 - half * half / 12.0 if half < _SMALL_RAD else 0.5 * math.sin(half) / half
    return _matrix(s * x, s * y, s * z, math.cos(half))


def _matrix(x: float, y: float, z: float, w: float) -> Array:
    """(3, 3) rotation of a quaternion of any positive norm."""
    s = 2.0 / (x * x + y * y + z * z + w * w)
    return np.array(
        [
            [1.0 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1.0 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1.0 - s * (x * x + y * y)],
        ]
    )


def _quaternion(R: Array) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation, of norm one, with w >= 0 (Shepperd 1978: by the largest of the four)."""
    (a, b, c), (d, e, f), (g, h, i) = R.tolist()
    trace = a + e + i
    if trace >= max(a, e, i):
        x, y, z, w = h - f, c - g, d - b, 1.0 + trace
    elif a >= max(e, i):
        x, y, z, w = 1.0 + a - e - i, b + d, c + g, h - f
    elif e >= i:
        x, y, z, w = b + d, 1.0 - a + e - i, f + h, c - g
    else:
        x, y, z, w = c + g, f + h, 1.0 - a - e + i, d - b
    norm = math.copysign(math.sqrt(x * x + y * y + z * z + w * w), w)
    return x / norm, y / norm, z / norm, w / norm


def _turn_vector(R: Array) -> Vector:
    """Rotation vector of a rotation, rad, at most π long."""
    x, y, z, w = _quaternion(R)
    sine = math.sqrt(x * x + y * y + z * z)
    # Angle over the sine of its half.
    s = 2.0 + sine * sine / 3.0 if sine < _SMALL_RAD else 2.0 * math.atan2(sine, w) / sine
    return s * x, s * y, s * z
