"""PoseNet: absolute pose regression (ICCV 2015; learned balance of CVPR 2017) with a VO head on the same encoder.

One call is one step of a stream: it takes an image and the fine features of the frame before, and gives the absolute
pose, the motion between the two frames, a spread for each, and the features to hand to the next step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.backbones import Encoder
from localizer_ros.networks.motion import MotionHead


class PosenetOutput(NamedTuple):
    """One step.

    Attributes:
        t_B3: camera position in the map, metres.
        q_B4: orientation quaternion (x, y, z, w) of the camera in the map, not normalised.
        log_sigma_B6: log of the standard deviations of [rotation (rad), translation (m)] in the tangent of the pose.
        rel_B6: motion since the frame before, [rotation vector (rad), translation (m)] of ``T_prev_cur``.
        rel_log_sigma_B6: its log standard deviations.
        descriptor_BC: pooled coarse features, unit length.
        matching_BFhw: state for the next step.
    """

    t_B3: Tensor
    q_B4: Tensor
    log_sigma_B6: Tensor
    rel_B6: Tensor
    rel_log_sigma_B6: Tensor
    descriptor_BC: Tensor
    matching_BFhw: Tensor


class AbsoluteHead(nn.Module):
    """Coarse features to position, orientation and spread.

    A few channels keep their place in the image (flattened), the rest is pooled as in the paper: where a thing is seen
    says as much of the pose as that it is seen.
    """

    def __init__(self, channels: int, cells: int, hidden: int, dropout: float) -> None:
        super().__init__()
        placed = max(8, min(128, 6144 // cells))
        self.place = nn.Conv2d(channels, placed, 1)
        self.hidden = nn.Linear(channels + placed * cells, hidden)
        self.dropout = nn.Dropout(dropout)
        self.position = nn.Linear(hidden, 3)
        self.orientation = nn.Linear(hidden, 4)
        self.spread = nn.Sequential(nn.Linear(hidden, 64), nn.ReLU(), nn.Linear(64, 6))
        # The scene's centre and size, so that the head starts from the mean pose. Set from the training poses.
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("scale", torch.ones(()))
        nn.init.zeros_(self.position.bias)
        nn.init.normal_(self.position.weight, std=1e-2)

    def forward(self, coarse_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        placed = F.relu(self.place(coarse_BChw)).flatten(1)
        x = F.relu(self.hidden(torch.cat([coarse_BChw.mean((2, 3)), placed], 1)))
        # The spread must not shape the features the pose is read from.
        log_sigma = self.spread(x.detach()).clamp(-7.0, 3.0)
        x = self.dropout(x)
        return self.centre + self.scale * self.position(x), self.orientation(x), log_sigma


class PoseNet(nn.Module):
    """Encoder, absolute head and motion head.

    Args:
        encoder: any of ``backbones``.
        size_hw: height and width of the input, pixels, multiples of 32.
        hidden: width of the layer before the pose.
        dropout: before the pose, while training.
    """

    def __init__(self, encoder: Encoder, size_hw: tuple[int, int], hidden: int, dropout: float) -> None:
        super().__init__()
        height, width = size_hw
        self.encoder = encoder
        self.absolute = AbsoluteHead(encoder.coarse_channels, height * width // 1024, hidden, dropout)
        self.motion = MotionHead(encoder.fine_channels, encoder.coarse_channels)
        self.state_shape = (MotionHead.channels, height // 8, width // 8)

    def forward(self, image_B3HW: Tensor, matching_prev_BFhw: Tensor) -> PosenetOutput:
        features = self.encoder(image_B3HW)
        matching = self.motion.features(features.fine)
        inverse_depth = self.motion.inverse_depth(features.fine, features.coarse)
        rel, rel_log_sigma, _ = self.motion(matching_prev_BFhw, matching, inverse_depth)
        t, q, log_sigma = self.absolute(features.coarse)
        descriptor = F.normalize(features.coarse.mean((2, 3)), dim=1)
        return PosenetOutput(t, q, log_sigma, rel, rel_log_sigma, descriptor, matching)


class BalancedLoss(nn.Module):
    """``L_x e^{-s_x} + s_x + L_q e^{-s_q} + s_q`` with learned s (Kendall and Cipolla 2017), L1 norms."""

    def __init__(self) -> None:
        super().__init__()
        self.s_x = nn.Parameter(torch.tensor(0.0))
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


def quaternion_distance(q_B4: Tensor, target_B4: Tensor, order: int) -> Tensor:
    """Mean norm of the difference to the nearer of q and -q, which are one rotation; (B, 4), target of unit length."""
    return torch.minimum(
        torch.linalg.vector_norm(q_B4 - target_B4, ord=order, dim=1),
        torch.linalg.vector_norm(q_B4 + target_B4, ord=order, dim=1),
    ).mean()


def spread_loss(residual_B6: Tensor, log_sigma_B6: Tensor) -> Tensor:
    """Mean distance of the log spread to the log of the residual's size; its minimum is the median.

    A Gaussian likelihood would do the same up to a factor, which calibration sets anyway, but one surprising residual
    makes its gradient larger than that of all other losses together, and clipping then stops everything.
    """
    return (log_sigma_B6 - residual_B6.abs().clamp_min(1e-4).log()).abs().mean()


def pose_residual(t_B3: Tensor, q_B4: Tensor, t_true_B3: Tensor, q_true_B4: Tensor) -> Tensor:
    """(B, 6) tangent residual [rotation (rad), translation (m)] of a pose to the truth, in the body frame."""
    q = F.normalize(q_B4, dim=1)
    conjugate = q * q.new_tensor([-1.0, -1.0, -1.0, 1.0])
    dq = quaternion_product(conjugate, q_true_B4)
    dq = torch.where(dq[:, 3:] < 0, -dq, dq)
    sine = torch.linalg.vector_norm(dq[:, :3], dim=1, keepdim=True)
    angle = 2.0 * torch.atan2(sine, dq[:, 3:])
    rotation = dq[:, :3] * torch.where(sine > 1e-6, angle / sine.clamp_min(1e-12), torch.full_like(sine, 2.0))
    return torch.cat([rotation, rotate(conjugate, t_true_B3 - t_B3)], 1)


def quaternion_product(a_B4: Tensor, b_B4: Tensor) -> Tensor:
    """Product of quaternions (x, y, z, w)."""
    av, aw = a_B4[:, :3], a_B4[:, 3:]
    bv, bw = b_B4[:, :3], b_B4[:, 3:]
    return torch.cat(
        [aw * bv + bw * av + torch.linalg.cross(av, bv), aw * bw - (av * bv).sum(1, keepdim=True)], 1
    )


def rotate(q_B4: Tensor, v_B3: Tensor) -> Tensor:
    """Vectors turned by unit quaternions (x, y, z, w)."""
    twice = 2.0 * torch.linalg.cross(q_B4[:, :3], v_B3)
    return v_B3 + q_B4[:, 3:] * twice + torch.linalg.cross(q_B4[:, :3], twice)
