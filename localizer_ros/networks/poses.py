"""Rigid transforms in torch, for losses and averages: a position (..., 3) and a quaternion (..., 4) as (x, y, z, w).

``T_a_b`` is the pose of b in a, as everywhere. A motion is a 6-vector [rotation vector (rad), translation (m)] of a
``T_a_b``, and so is a residual: ``T_true = (R Exp(w), t + R v)`` for the residual [w, v] of the pose (R, t).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Pose(NamedTuple):
    """``T_a_b``: position ``t`` (..., 3) in metres, quaternion ``q`` (..., 4) of unit length unless said otherwise."""

    t: Tensor
    q: Tensor


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of vectors (..., 3), broadcast."""
    product: Tensor = torch.linalg.cross(*torch.broadcast_tensors(a, b))
    return product


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions (..., 4), broadcast."""
    av, aw = a[..., :3], a[..., 3:]
    bv, bw = b[..., :3], b[..., 3:]
    return torch.cat([aw * bv + bw * av + cross(av, bv), aw * bw - (av * bv).sum(-1, keepdim=True)], -1)


def conjugate(q: Tensor) -> Tensor:
    """Inverse of unit quaternions (..., 4)."""
    return q * q.new_tensor([-1.0, -1.0, -1.0, 1.0])


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors (..., 3) turned by unit quaternions (..., 4), broadcast."""
    twice = 2.0 * cross(q[..., :3], v)
    return v + q[..., 3:] * twice + cross(q[..., :3], twice)


def same_side(q: Tensor, reference: Tensor) -> Tensor:
    """That of q and -q which is nearer to ``reference``; both are one rotation."""
    return torch.where((q * reference).sum(-1, keepdim=True) < 0.0, -q, q)


def canonical(q: Tensor) -> Tensor:
    """That of q and -q with w >= 0."""
    return torch.where(q[..., 3:] < 0.0, -q, q)


def quaternion_log(q: Tensor) -> Tensor:
    """``v/|v| arccos(u)`` of unit quaternions (v, u), (..., 3): half the rotation vector, up to π long for w < 0."""
    sine = torch.linalg.vector_norm(q[..., :3], dim=-1, keepdim=True)
    # atan2 is accurate where arccos is not, and finite in its gradient at the identity.
    half_angle = torch.atan2(sine, q[..., 3:])
    return q[..., :3] * torch.where(sine > 1e-6, half_angle / sine.clamp_min(1e-12), torch.ones_like(sine))


def rotation_vector(q: Tensor) -> Tensor:
    """Rotation vectors (..., 3), radians, of unit quaternions; at most π long."""
    return 2.0 * quaternion_log(canonical(q))


def quaternion_exp(w: Tensor) -> Tensor:
    """Unit quaternions (..., 4) of rotation vectors (..., 3)."""
    half = 0.5 * torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    # torch.sinc(x) is sin(πx)/(πx), smooth at 0.
    return torch.cat([0.5 * w * torch.sinc(half / torch.pi), torch.cos(half)], -1)


def compose(T_a_b: Pose, T_b_c: Pose) -> Pose:
    """``T_a_c``."""
    return Pose(T_a_b.t + rotate(T_a_b.q, T_b_c.t), quaternion_product(T_a_b.q, T_b_c.q))


def relative(T_a_b: Pose, T_a_c: Pose) -> Pose:
    """``T_b_c``."""
    inverse = conjugate(T_a_b.q)
    return Pose(rotate(inverse, T_a_c.t - T_a_b.t), quaternion_product(inverse, T_a_c.q))


def pose_of_motion(motion: Tensor) -> Pose:
    """``T_a_b`` of motions (..., 6)."""
    return Pose(motion[..., 3:], quaternion_exp(motion[..., :3]))


def motion_of_pose(T_a_b: Pose) -> Tensor:
    """Motions (..., 6) of ``T_a_b``."""
    return torch.cat([rotation_vector(T_a_b.q), T_a_b.t], -1)


def pose_residual(t: Tensor, q: Tensor, t_true: Tensor, q_true: Tensor) -> Tensor:
    """Residuals (..., 6) of poses to the truth, in the body frame; ``q`` of any positive length."""
    return motion_of_pose(relative(Pose(t, F.normalize(q, dim=-1)), Pose(t_true, q_true)))
