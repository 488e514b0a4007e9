"""What pose networks are trained for. Poses are (..., 3) positions and (..., 4) quaternions of any leading shape."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.poses import (
    Pose,
    canonical,
    compose,
    conjugate,
    pose_of_motion,
    quaternion_log,
    relative,
    rotate,
    same_side,
)

# --- one pose ---


class BalancedLoss(nn.Module):
    """``L_x e^{-s_x} + s_x + L_q e^{-s_q} + s_q`` with learned s (Kendall and Cipolla 2017).

    With L1 norms of position and log quaternion this is MapNet's distance h, its β and γ being s_x and s_q.

    Args:
        expected_m: error of positions that s_x starts from; 1 in the paper. s moves by a learning rate a step at most:
            started metres away from what a room asks for, it spends the training on the way, and positions with it.
    """

    def __init__(self, expected_m: float = 1.0) -> None:
        super().__init__()
        self.s_x = nn.Parameter(torch.tensor(math.log(expected_m)))
        self.s_q = nn.Parameter(torch.tensor(-3.0))

    def forward(self, loss_x: Tensor, loss_q: Tensor) -> Tensor:
        """Both scalar losses into one."""
        return loss_x * torch.exp(-self.s_x) + self.s_x + loss_q * torch.exp(-self.s_q) + self.s_q


class BetaLoss(nn.Module):
    """``L_x + beta L_q`` with a fixed beta (Kendall et al. 2015)."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, loss_x: Tensor, loss_q: Tensor) -> Tensor:
        """Both scalar losses into one."""
        return loss_x + self.beta * loss_q


def position_distance(t: Tensor, t_true: Tensor, order: int) -> Tensor:
    """Mean norm of the difference of positions, metres."""
    distance: Tensor = torch.linalg.vector_norm(t - t_true, ord=order, dim=-1)
    return distance.mean()


def quaternion_distance(q: Tensor, q_true: Tensor, order: int) -> Tensor:
    """Mean norm of the difference to the nearer of q and -q, which are one rotation; ``q_true`` of unit length."""
    return torch.minimum(
        torch.linalg.vector_norm(q - q_true, ord=order, dim=-1),
        torch.linalg.vector_norm(q + q_true, ord=order, dim=-1),
    ).mean()


def log_quaternion_distance(q: Tensor, q_true: Tensor) -> Tensor:
    """Mean L1 norm of ``log q - log q_true`` (MapNet, CVPR 2018); ``q`` of any positive length.

    The truth is taken with w >= 0 and the prediction on its side, whatever its own sign: half a turn from the map's
    axes, where the logarithm jumps, nearly the same rotation is near.
    """
    q_true = canonical(q_true)
    q = same_side(F.normalize(q, dim=-1), q_true)
    return (quaternion_log(q) - quaternion_log(q_true)).abs().sum(-1).mean()


def sigma_loss(residual: Tensor, log_sigma: Tensor) -> Tensor:
    """Mean distance of the log sigma to the log of the residual's size; its minimum is the median.

    A Gaussian likelihood would do the same up to a factor, which calibration sets anyway, but one surprising residual
    makes its gradient larger than that of all other losses together, and clipping then stops everything.
    """
    return (log_sigma - residual.abs().clamp_min(1e-4).log()).abs().mean()


def reprojection_loss(
    pose: Pose,
    true: Pose,
    points_BN3: Tensor,
    visible_BN: Tensor,
    focal_px: tuple[float, float] | Tensor,
    clamp_px: float,
) -> Tensor:
    """Mean distance (L1, px) between where the true and the predicted camera see points (Kendall and Cipolla 2017).

    Only for fine-tuning a network that knows its poses roughly: from far off, most points are behind the predicted
    camera or clamped, and give no gradient.

    Args:
        pose: predicted ``T_map_cam``, (B, 3) and (B, 4), quaternions of any positive length.
        true: the true ones, of unit length.
        points_BN3: points in the map frame.
        visible_BN: bool, which points each true camera sees; others are not counted.
        focal_px: focal lengths of the pinhole camera in x and y. Its centre cancels.
        clamp_px: a point counts at most this, also one that is not in front of the predicted camera.
    """
    focal = torch.as_tensor(focal_px, dtype=points_BN3.dtype, device=points_BN3.device)

    def project(camera: Pose) -> tuple[Tensor, Tensor]:
        inverse = conjugate(F.normalize(camera.q, dim=-1))[:, None].expand(*points_BN3.shape[:2], 4)
        p = rotate(inverse, points_BN3 - camera.t[:, None])
        in_front = p[..., 2] > 1e-2
        return focal * p[..., :2] / torch.where(in_front, p[..., 2], 1.0)[..., None], in_front

    (predicted, in_front), (expected, _) = project(pose), project(true)
    distance = (predicted - expected).abs().sum(-1).clamp_max(clamp_px)
    distance = torch.where(in_front, distance, torch.full_like(distance, clamp_px))
    return (distance * visible_BN).sum() / visible_BN.sum().clamp_min(1)


# --- poses of several frames ---


class SequenceLosses(NamedTuple):
    """Scalars: of absolute poses, of motions, and of poses reached by a motion from the frame before."""

    absolute: Tensor
    motion: Tensor
    joint: Tensor


class MapNetLoss(nn.Module):
    """``Σ h(p_i) + Σ h(v_ij)`` over absolute poses p_i and the poses v_ij of each frame relative to the one before.

    Brahmbhatt et al., CVPR 2018, with relative poses composed on SE(3) in place of differences of 6-vectors.

    Args:
        expected_m: see :class:`BalancedLoss`.
    """

    def __init__(self, expected_m: float = 1.0) -> None:
        super().__init__()
        self.absolute = BalancedLoss(expected_m)
        self.relative = BalancedLoss(expected_m)

    def forward(self, pose: Pose, true: Pose) -> Tensor:
        """The loss of predicted absolute poses (B, K, 3) and (B, K, 4) of K >= 2 frames each; scalar."""
        pose = Pose(pose.t, F.normalize(pose.q, dim=-1))
        return _distance(self.absolute, pose, true) + _distance(
            self.relative, relative(*_pairs(pose)), relative(*_pairs(true))
        )


class LsgLoss(nn.Module):
    """``L_global + L_vo + L_joint`` of Local Supports Global (ICCV 2019), each MapNet's h with its own balance.

    L_joint compares the predicted pose of the frame before, composed with the predicted motion, with the true pose.

    Args:
        expected_m: see :class:`BalancedLoss`.
    """

    def __init__(self, expected_m: float = 1.0) -> None:
        super().__init__()
        self.absolute = BalancedLoss(expected_m)
        self.motion = BalancedLoss(expected_m)
        self.joint = BalancedLoss(expected_m)

    def forward(self, pose: Pose, motion_BT6: Tensor, true: Pose) -> SequenceLosses:
        """The three losses of sequences.

        Args:
            pose: predicted absolute poses, (B, T, 3) and (B, T, 4), T >= 2, quaternions of any positive length.
            motion_BT6: predicted motion to each frame from the one before; that to the first frame is not looked at.
            true: true absolute poses, of unit length.
        """
        pose = Pose(pose.t, F.normalize(pose.q, dim=-1))
        motion = pose_of_motion(motion_BT6[:, 1:])
        (before, _), (true_before, true_after) = _pairs(pose), _pairs(true)
        return SequenceLosses(
            _distance(self.absolute, pose, true),
            _distance(self.motion, motion, relative(true_before, true_after)),
            _distance(self.joint, compose(before, motion), true_after),
        )


def _pairs(pose: Pose) -> tuple[Pose, Pose]:
    return Pose(pose.t[:, :-1], pose.q[:, :-1]), Pose(pose.t[:, 1:], pose.q[:, 1:])


def _distance(balance: BalancedLoss, pose: Pose, true: Pose) -> Tensor:
    h: Tensor = balance(position_distance(pose.t, true.t, 1), log_quaternion_distance(pose.q, true.q))
    return h
