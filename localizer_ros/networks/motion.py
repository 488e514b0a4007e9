"""Visual odometry on the features of an encoder: flow, depth, and the motion that explains both.

The head measures where each cell of the newest frame was in the frame before, guesses how far away it is, and solves
for the one rigid motion by weighted least squares. Geometry does what fully connected layers would have to learn: a
motion needs no training poses near it, and translation is metric as far as depth is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MotionOutput(NamedTuple):
    """One motion.

    Attributes:
        rel_B6: [rotation vector (rad), translation (m)] of ``T_prev_cur``.
        log_sigma_B6: log of its standard deviations.
        flow_B2hw: where each cell of the newest frame was in the frame before, cells of 8 px, x and y.
    """

    rel_B6: Tensor
    log_sigma_B6: Tensor
    flow_B2hw: Tensor


class MotionHead(nn.Module):
    """Local correlation, softmax over the displacements, correction, depth, least squares.

    The correlations themselves, read by convolutions without the softmax, did not learn small motions at all.

    Args:
        fine_channels: of the encoder at stride 8.
        coarse_channels: of the encoder at stride 32.
    """

    radius = 4  # cells of 8 px: motions up to 32 px of the network's image
    channels = 32
    cell_px = 8
    steps = 3  # of Gauss-Newton; motions are small

    def __init__(self, fine_channels: int, coarse_channels: int, width: int = 32) -> None:
        super().__init__()
        self.matching = nn.Conv2d(fine_channels, self.channels, 3, padding=1)
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        step = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(step, step, indexing="ij")).flatten(1).flip(0)
        self.register_buffer("displacements_2K", grid, persistent=False)
        self.read = nn.Sequential(
            nn.Conv2d(5, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )
        self.context = nn.Conv2d(coarse_channels, 64, 1)
        self.depth = nn.Sequential(
            nn.Conv2d(64 + fine_channels, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )
        self.spread = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 6))
        # Of the network's image in cells: fx, fy, cx, cy. Set from the camera.
        self.register_buffer("intrinsics_4", torch.tensor([26.0, 26.0, 15.5, 11.5]))
        # 1 / metres, typical of the scene. Set from the training data.
        self.register_buffer("inverse_depth_scale", torch.tensor(0.5))
        # Where the optical centre sits on the body whose motion is wanted. Set from the map of points.
        self.register_buffer("R_cam_opt", torch.eye(3))
        self.register_buffer("t_cam_opt", torch.zeros(3))
        # Residuals, in cells, beyond which a cell is taken for wrong.
        self.log_outlier = nn.Parameter(torch.tensor(-1.5))
        for last in (self.read[-1], self.depth[-1], self.spread[-1]):
            assert isinstance(last, nn.Conv2d | nn.Linear) and last.bias is not None
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def set_camera(self, K: Tensor, R_cam_opt: Tensor, t_cam_opt: Tensor) -> None:
        """Set where things are seen.

        Args:
            K: (3, 3) calibration of the network's image, integer pixels at their centres.
            R_cam_opt: (3, 3) orientation of the optical frame on the body whose motion is wanted.
            t_cam_opt: (3,) its place there, metres.
        """
        centre = (K[:2, 2] - (self.cell_px - 1) / 2.0) / self.cell_px
        self.intrinsics_4.copy_(torch.cat([K.diagonal()[:2] / self.cell_px, centre]))
        self.R_cam_opt.copy_(R_cam_opt)
        self.t_cam_opt.copy_(t_cam_opt)

    def features(self, fine_BFhw: Tensor) -> Tensor:
        """What is kept of a frame to be matched with the next: (B, 32, h, w), unit length along channels."""
        return F.normalize(self.matching(fine_BFhw), dim=1)

    def inverse_depth(self, fine_BFhw: Tensor, coarse_BChw: Tensor) -> Tensor:
        """(B, h, w) 1 / metres of each cell of stride 8."""
        context = F.interpolate(F.relu(self.context(coarse_BChw)), fine_BFhw.shape[2:], mode="bilinear")
        log_ratio = self.depth(torch.cat([context, fine_BFhw], 1))[:, 0]
        return self.inverse_depth_scale * log_ratio.clamp(-4.0, 4.0).exp()

    def forward(self, prev_BFhw: Tensor, cur_BFhw: Tensor, inverse_depth_Bhw: Tensor) -> MotionOutput:
        """Motion between two frames, from their ``features`` and the newest frame's ``inverse_depth``."""
        flow_B2hw, weight_Bhw = self._flow(prev_BFhw, cur_BFhw)
        rel, variance_B6, residual_B = self._solve(flow_B2hw, weight_Bhw, inverse_depth_Bhw)
        known = torch.cat([0.5 * variance_B6.log(), residual_B[:, None].log()], 1).detach()
        log_sigma = known[:, :6] + self.spread(known)
        return MotionOutput(rel, log_sigma.clamp(-9.0, 2.0), flow_B2hw)

    def _flow(self, prev_BFhw: Tensor, cur_BFhw: Tensor) -> tuple[Tensor, Tensor]:
        h, w = cur_BFhw.shape[2:]
        r = self.radius
        padded = F.pad(prev_BFhw, (r, r, r, r))
        correlation_BKhw = torch.stack(
            [
                (cur_BFhw * padded[:, :, dy : dy + h, dx : dx + w]).sum(1)
                for dy in range(2 * r + 1)
                for dx in range(2 * r + 1)
            ],
            1,
        )
        probability_BKhw = torch.softmax(correlation_BKhw * self.log_sharpness.exp(), 1)
        flow = torch.einsum("bkhw,ck->bchw", probability_BKhw, self.displacements_2K)
        second = torch.einsum("bkhw,ck->bchw", probability_BKhw, self.displacements_2K.square())
        scatter = second - flow.square()
        certainty_B1hw = probability_BKhw.amax(1, keepdim=True)
        correction = self.read(torch.cat([flow, scatter, certainty_B1hw], 1))
        return flow + correction[:, :2], correction[:, 2].clamp(-6.0, 6.0).exp()

    def _solve(
        self, flow_B2hw: Tensor, weight_Bhw: Tensor, inverse_depth_Bhw: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rigid motion by Gauss-Newton on the reprojection of cells, its variances, and the residuals' size (cells)."""
        b, _, h, w = flow_B2hw.shape
        rays_N3 = self.rays(h, w)
        focal_2 = self.intrinsics_4[:2]
        q = inverse_depth_Bhw.flatten(1)[..., None]
        seen = rays_N3[None, :, :2] + flow_B2hw.flatten(2).transpose(1, 2) / focal_2
        weight = weight_Bhw.flatten(1) / weight_Bhw.flatten(1).mean(1, keepdim=True)
        R = torch.eye(3, device=q.device, dtype=q.dtype).expand(b, 3, 3)
        t = torch.zeros(b, 3, device=q.device, dtype=q.dtype)
        unit = torch.eye(6, device=q.device, dtype=q.dtype)
        # Where cells say nothing of a direction, no motion is the answer: a thousandth of what one good frame says.
        damping = 1e-3 * torch.cat(
            [torch.ones_like(t), self.inverse_depth_scale.square() * torch.ones_like(t)], 1
        )
        outlier = self.log_outlier.exp()
        inverse_B66, residual_B = unit.expand(b, 6, 6), torch.ones_like(t[:, 0])
        for _ in range(self.steps):
            p = rays_N3 @ R.transpose(1, 2) + q * t[:, None]
            z = p[..., 2:].clamp_min(0.1)
            xy = p[..., :2] / z
            error_BN2 = (seen - xy) * focal_2
            size = error_BN2.square().sum(2)
            trust = weight / (1.0 + size / outlier.square())
            jacobian = _jacobian(p, z, xy, q) * focal_2[:, None]
            weighted = jacobian * trust[..., None, None]
            normal = torch.einsum("bnki,bnkj->bij", weighted, jacobian) / (h * w)
            gradient = torch.einsum("bnki,bnk->bi", weighted, error_BN2) / (h * w)
            normal = normal + torch.diag_embed(damping)
            inverse_B66 = inverse_spd(normal)
            step = (inverse_B66 @ gradient[..., None])[..., 0]
            turn = rotation_matrix(step[:, :3])
            R = turn @ R
            t = (turn @ t[..., None])[..., 0] + step[:, 3:]
            residual_B = (0.5 * (trust * size).sum(1) / trust.sum(1)).clamp_min(1e-8).sqrt()
        # The gradient of the body's own axes: covariance turned from prev to cur differs by a small motion only.
        variance = (
            inverse_B66.diagonal(dim1=1, dim2=2).clamp_min(1e-12) * residual_B[:, None].square() / (h * w)
        )
        R, t = self._seen_from(R, t, self.R_cam_opt, self.t_cam_opt)
        return torch.cat([rotation_vector(R), t], 1), variance, residual_B

    @staticmethod
    def _seen_from(R_B33: Tensor, t_B3: Tensor, R_a_b: Tensor, t_a_b: Tensor) -> tuple[Tensor, Tensor]:
        """The motion of b as a motion of a, which it is fixed to: ``T_a_b T T_a_b^-1``."""
        turned = R_a_b @ R_B33 @ R_a_b.T
        return turned, t_B3 @ R_a_b.T + t_a_b - turned @ t_a_b

    def rays(self, h: int, w: int) -> Tensor:
        """(h w, 3) directions of the cells, z = 1."""
        fx, fy, cx, cy = self.intrinsics_4.unbind()
        ys, xs = torch.meshgrid(
            torch.arange(h, device=fx.device, dtype=fx.dtype),
            torch.arange(w, device=fx.device, dtype=fx.dtype),
            indexing="ij",
        )
        return torch.stack([(xs - cx) / fx, (ys - cy) / fy, torch.ones_like(xs)], 2).flatten(0, 1)

    def true_flow(self, inverse_depth_Bhw: Tensor, rel_B6: Tensor) -> Tensor:
        """(B, 2, h, w) flow, cells, that a known depth and motion cause."""
        b, h, w = inverse_depth_Bhw.shape
        rays_N3 = self.rays(h, w)
        R_opt_cam = self.R_cam_opt.T
        R, t = self._seen_from(
            rotation_matrix(rel_B6[:, :3]), rel_B6[:, 3:], R_opt_cam, -R_opt_cam @ self.t_cam_opt
        )
        p = rays_N3 @ R.transpose(1, 2) + inverse_depth_Bhw.flatten(1)[..., None] * t[:, None]
        xy = p[..., :2] / p[..., 2:].clamp_min(0.1)
        return ((xy - rays_N3[:, :2]) * self.intrinsics_4[:2]).transpose(1, 2).reshape(b, 2, h, w)


def _jacobian(p_BN3: Tensor, z_BN1: Tensor, xy_BN2: Tensor, q_BN1: Tensor) -> Tensor:
    """(B, N, 2, 6) of the projection of ``exp(w) p + q v`` by [w, v]."""
    zero, one = torch.zeros_like(z_BN1), torch.ones_like(z_BN1)
    x, y = xy_BN2[..., :1], xy_BN2[..., 1:]
    scaled = q_BN1 / z_BN1
    px, py, pz = (p_BN3[..., i : i + 1] / z_BN1 for i in range(3))
    # d p = -[p]x w + q v; d (p_x / p_z) = (d p_x - x d p_z) / p_z
    row_x = torch.cat([-x * py, pz + x * px, -py, scaled, zero, -x * scaled], 2)
    row_y = torch.cat([-pz - y * py, y * px, px * one, zero, scaled, -y * scaled], 2)
    return torch.stack([row_x, row_y], 2)


def inverse_spd(A_BNN: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices by Gauss-Jordan: plain tensor operations, so that it exports."""
    n = A_BNN.shape[1]
    unit = torch.eye(n, device=A_BNN.device, dtype=A_BNN.dtype)
    M = torch.cat([A_BNN, unit.expand_as(A_BNN)], 2)
    for k in range(n):
        row = M[:, k : k + 1] / M[:, k : k + 1, k : k + 1]
        M = M - (M[:, :, k : k + 1] - unit[:, k : k + 1]) * row
    return M[:, :, n:]


def rotation_matrix(w_B3: Tensor) -> Tensor:
    """(B, 3, 3) of rotation vectors, radians."""
    square = w_B3.square().sum(1)[:, None, None]
    angle = (square + 1e-16).sqrt()
    small = square < 1e-8
    sine = torch.where(small, 1.0 - square / 6.0, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - square / 24.0, (1.0 - angle.cos()) / (square + 1e-16))
    x, y, z = w_B3.unbind(1)
    zero = torch.zeros_like(x)
    W = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return torch.eye(3, device=w_B3.device, dtype=w_B3.dtype) + sine * W + cosine * (W @ W)


def rotation_vector(R_B33: Tensor) -> Tensor:
    """(B, 3) rotation vectors, radians, of rotations by less than half a turn."""
    v = 0.5 * torch.stack(
        [
            R_B33[:, 2, 1] - R_B33[:, 1, 2],
            R_B33[:, 0, 2] - R_B33[:, 2, 0],
            R_B33[:, 1, 0] - R_B33[:, 0, 1],
        ],
        1,
    )
    sine = (v.square().sum(1, keepdim=True) + 1e-16).sqrt()
    cosine = 0.5 * (R_B33.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1.0)
    return v * torch.where(sine < 1e-4, torch.ones_like(sine), torch.atan2(sine, cosine) / sine)
