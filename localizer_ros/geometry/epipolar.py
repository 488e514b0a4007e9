"""Epipolar lines: where a point that one camera sees must lie in the image of another."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import skew
from localizer_ros.core.types import Array

# Lines through the epipole itself have no direction; this is far below any that is of use.
_LEAST_NORMAL = 1e-12


def essential_matrix(T_b_a: Array) -> Array:
    """(3, 3) matrix E with ``b^T E a = 0`` for a point on the rays a and b of two cameras, each (x, y, 1).

    Args:
        T_b_a: (4, 4) pose of camera a in camera b.
    """
    return skew(T_b_a[:3, 3]) @ T_b_a[:3, :3]


def fundamental_matrix(T_b_a: Array, K: Array) -> Array:
    """(3, 3) matrix F with ``b^T F a = 0`` for pixels a and b of two images, each (u, v, 1).

    Args:
        T_b_a: (4, 4) pose of camera a in camera b.
        K: (3, 3) intrinsics of both cameras.
    """
    K_inverse = np.linalg.inv(K)
    return np.asarray(K_inverse.T @ essential_matrix(T_b_a) @ K_inverse)


def epipolar_distances(E_b_a: Array, xy_a: Array, xy_b: Array) -> Array:
    """(N,) root mean square distance of matched points from each other's epipolar lines, in the unit of ``xy``.

    Args:
        E_b_a: (3, 3) essential matrix for rays on the plane z = 1, or fundamental matrix for pixels.
        xy_a, xy_b: (N, 2) the matched points.
    """
    a, b = _homogeneous(xy_a), _homogeneous(xy_b)
    line_b, line_a = a @ E_b_a.T, b @ E_b_a
    normal = np.sqrt(0.5 * (line_a[:, :2] ** 2 + line_b[:, :2] ** 2).sum(axis=1)) + _LEAST_NORMAL
    return np.asarray(np.abs(np.einsum("ni,ni->n", b, line_b)) / normal)


def _homogeneous(xy: Array) -> Array:
    return np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
