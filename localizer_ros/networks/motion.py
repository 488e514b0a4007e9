"""Visual odometry: depth from the encoder's features, motion by aligning the frame before with the newest one.

The head guesses how far away everything in the newest frame is, and then solves for the one rigid motion that explains
what the frame before shows: direct alignment over an image pyramid, by Gauss-Newton (Engel et al., "Semi-dense visual
odometry for a monocular camera", ICCV 2013; Tang and Tan, "BA-Net", ICLR 2019, have it inside a network). Geometry does
what fully connected layers would have to learn: a motion needs no training poses near it, and it is metric as far as
the depth is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.poses import (
    Pose,
    compose,
    conjugate,
    motion_of_pose,
    quaternion_exp,
    quaternion_product,
    rotate,
)


class Level(NamedTuple):
    """One level of the pyramid.

    Attributes:
        stride: pixels of the network's image along a side of one of its pixels.
        steps: of Gauss-Newton.
    """

    stride: int
    steps: int


class MotionOutput(NamedTuple):
    """A motion.

    Attributes:
        rel_B6: [rotation vector (rad), translation (m)] of ``T_prev_cur``.
        log_sigma_B6: log of its standard deviations.
    """

    rel_B6: Tensor
    log_sigma_B6: Tensor


class MotionHead(nn.Module):
    """Depth network and direct alignment; no parameter of the alignment is learned but the size of its errors.

    Args:
        fine_channels: of the encoder at stride 8.
        coarse_channels: of the encoder at stride 32.
    """

    # The coarsest level finds turns of about a tenth of the image's width; the finest makes them precise.
    pyramid = (Level(16, 3), Level(8, 3), Level(4, 2), Level(2, 1))
    # Residuals, in local standard deviations of the image, beyond which a pixel is taken for something else.
    outlier = 0.5
    # Side of the window, in pixels of stride 2, over which brightness and contrast are made equal.
    window = 17
    # Standard deviation of an image without texture, in units of the network's input (0.03 of the full range).
    flat = 0.13
    # Where an image says little of a direction, no motion is the answer: share of what it says on average.
    damping = 1e-4

    def __init__(self, fine_channels: int, coarse_channels: int) -> None:
        super().__init__()
        self.context = nn.Conv2d(coarse_channels, 64, 1)
        self.depth = nn.Sequential(
            nn.Conv2d(64 + fine_channels, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )
        self.spread = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 6))
        # fx, fy, cx, cy of the network's image, pixels. Set from the camera.
        self.register_buffer("intrinsics_4", torch.tensor([200.0, 200.0, 127.5, 95.5]))
        # Where the optical centre sits on the body whose motion is wanted: ``T_cam_opt``. Set from the map of points.
        self.register_buffer("t_cam_opt", torch.zeros(3))
        self.register_buffer("q_cam_opt", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        # 1 / metres, typical of the scene. Set from the training data.
        self.register_buffer("inverse_depth_scale", torch.tensor(0.5))
        for last in (self.depth[-1], self.spread[-1]):
            assert isinstance(last, nn.Conv2d | nn.Linear) and last.bias is not None
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def set_camera(self, K: Tensor, T_cam_opt: Pose) -> None:
        """Set the calibration (3, 3) of the network's image, with integer pixels at their centres, and the place of
        the optical centre on the body whose motion is wanted."""
        self.intrinsics_4.copy_(torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]))
        self.t_cam_opt.copy_(T_cam_opt.t)
        self.q_cam_opt.copy_(T_cam_opt.q)

    def features(self, image_B3HW: Tensor) -> Tensor:
        """What is kept of a frame to be aligned with the next: (B, 1, H/2, W/2), grey, of equal local contrast."""
        grey = F.avg_pool2d(image_B3HW.mean(1, keepdim=True), 2)
        centred = grey - self._local_mean(grey)
        return centred / (self._local_mean(centred.square()).sqrt() + self.flat)

    def rays(self, h: int, w: int) -> Tensor:
        """(h w, 3) directions, z = 1, of the centres of the cells of stride 8."""
        return _rays(h, w, self.intrinsics_4[:2] / 8.0, (self.intrinsics_4[2:] - 3.5) / 8.0)

    def inverse_depth(self, fine_BFhw: Tensor, coarse_BChw: Tensor) -> Tensor:
        """(B, h, w) 1 / metres of each cell of stride 8."""
        context = F.interpolate(F.relu(self.context(coarse_BChw)), fine_BFhw.shape[2:], mode="bilinear")
        log_ratio = self.depth(torch.cat([context, fine_BFhw], 1))[:, 0]
        return self.inverse_depth_scale * log_ratio.clamp(-4.0, 4.0).exp()

    def forward(
        self, prev_B1hw: Tensor, cur_B1hw: Tensor, inverse_depth_Bhw: Tensor, finest: int = 2
    ) -> MotionOutput:
        """Motion between two frames.

        Args:
            prev_B1hw: ``features`` of the frame before.
            cur_B1hw: those of the newest frame.
            inverse_depth_Bhw: of the newest frame.
            finest: stride at which to stop; training needs no more than 4.
        """
        b = cur_B1hw.shape[0]
        T_prev_cur = Pose(
            self.t_cam_opt.new_zeros(b, 3), self.q_cam_opt.new_tensor([0.0, 0, 0, 1]).expand(b, 4)
        )
        with torch.no_grad():
            for level in self.pyramid:
                if level.stride >= finest:
                    images = [F.avg_pool2d(x, level.stride // 2) for x in (prev_B1hw, cur_B1hw)]
                    for _ in range(level.steps):
                        T_prev_cur, _, _ = self._step(T_prev_cur, *images, inverse_depth_Bhw)
        # At the optimum one more step has the gradient of the whole solution.
        images = [F.avg_pool2d(x, finest // 2) for x in (prev_B1hw, cur_B1hw)]
        T_prev_cur, variance_B6, residual_B = self._step(T_prev_cur, *images, inverse_depth_Bhw)
        mounting = Pose(self.t_cam_opt.expand(b, 3), self.q_cam_opt.expand(b, 4))
        back = Pose(-rotate(conjugate(mounting.q), mounting.t), conjugate(mounting.q))
        known = torch.cat([0.5 * variance_B6.log(), residual_B[:, None].log()], 1).detach()
        log_sigma = known[:, :6] + self.spread(known)
        return MotionOutput(
            motion_of_pose(compose(compose(mounting, T_prev_cur), back)), log_sigma.clamp(-9.0, 2.0)
        )

    def _local_mean(self, x_B1hw: Tensor) -> Tensor:
        half = self.window // 2
        return F.avg_pool2d(F.pad(x_B1hw, (half, half, half, half), mode="replicate"), self.window, 1)

    def _step(
        self, T_prev_cur: Pose, prev_B1hw: Tensor, cur_B1hw: Tensor, inverse_depth_Bhw: Tensor
    ) -> tuple[Pose, Tensor, Tensor]:
        """One step of Gauss-Newton: the optical centre's motion, its variances (B, 6) and the residuals' size (B,)."""
        b, _, h, w = cur_B1hw.shape
        stride = 8.0 * inverse_depth_Bhw.shape[2] / w
        focal_2 = self.intrinsics_4[:2] / stride
        centre_2 = (self.intrinsics_4[2:] - 0.5 * (stride - 1.0)) / stride
        size_2 = focal_2.new_tensor([w, h])
        q_B1N = F.interpolate(inverse_depth_Bhw[:, None], (h, w), mode="bilinear").flatten(2)
        q = q_B1N.transpose(1, 2)
        rays_N3 = _rays(h, w, focal_2, centre_2)
        p = rays_N3 @ _rotation_matrix(T_prev_cur.q).transpose(1, 2) + q * T_prev_cur.t[:, None]
        z = p[..., 2:].clamp_min(0.1)
        pixel_BN2 = p[..., :2] / z * focal_2 + centre_2
        prev, cur = _with_gradient(_blurred(prev_B1hw)), _with_gradient(_blurred(cur_B1hw))
        grid = (2.0 * (pixel_BN2 + 0.5) / size_2 - 1.0).reshape(b, h, w, 2)
        seen_BN3 = F.grid_sample(prev, grid, align_corners=False).flatten(2).transpose(1, 2)
        wanted_BN3 = cur.flatten(2).transpose(1, 2)
        inside = ((pixel_BN2 > 0.0) & (pixel_BN2 < size_2 - 1.0)).all(2).to(q.dtype)
        error = (wanted_BN3[..., 0] - seen_BN3[..., 0]) * inside
        trust = inside / (1.0 + (error / self.outlier).square())
        # The mean of both images' gradients converges as fast as second order (Benhimane and Malis, 2004).
        slope_BN2 = 0.5 * (seen_BN3[..., 1:] + wanted_BN3[..., 1:]) * focal_2
        jacobian = _jacobian(p, z, q, slope_BN2)
        weighted = (jacobian * trust[..., None]).transpose(1, 2)
        normal = weighted @ jacobian / (h * w)
        gradient = weighted @ error[..., None] / (h * w)
        scale_6 = torch.cat([focal_2.new_ones(3), self.inverse_depth_scale.square().expand(3)])
        mean = normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-3)
        inverse_B66 = inverse_spd(normal + torch.diag_embed(self.damping * mean[:, None] * scale_6))
        step = (inverse_B66 @ gradient)[..., 0]
        turn = quaternion_exp(step[:, :3])
        moved = Pose(rotate(turn, T_prev_cur.t) + step[:, 3:], quaternion_product(turn, T_prev_cur.q))
        residual_B = ((trust * error.square()).sum(1) / trust.sum(1).clamp_min(1.0)).clamp_min(1e-8).sqrt()
        variance = (
            inverse_B66.diagonal(dim1=1, dim2=2).clamp_min(1e-12) * residual_B[:, None].square() / (h * w)
        )
        return moved, variance, residual_B


def _rays(h: int, w: int, focal_2: Tensor, centre_2: Tensor) -> Tensor:
    """(h w, 3) directions of the pixels, z = 1."""
    ys, xs = torch.meshgrid(
        torch.arange(h, device=focal_2.device, dtype=focal_2.dtype),
        torch.arange(w, device=focal_2.device, dtype=focal_2.dtype),
        indexing="ij",
    )
    xy = (torch.stack([xs, ys], 2).flatten(0, 1) - centre_2) / focal_2
    return F.pad(xy, (0, 1), value=1.0)


def _blurred(x_B1hw: Tensor) -> Tensor:
    """Binomial blur: gradients of neighbouring pixels are those of a smooth image."""
    row = x_B1hw.new_tensor([0.25, 0.5, 0.25])
    return F.conv2d(F.pad(x_B1hw, (1, 1, 1, 1), mode="replicate"), torch.outer(row, row)[None, None])


def _with_gradient(x_B1hw: Tensor) -> Tensor:
    """(B, 3, h, w): image and its derivatives along x and y."""
    p = F.pad(x_B1hw, (1, 1, 1, 1), mode="replicate")
    along_x = 0.5 * (p[:, :, 1:-1, 2:] - p[:, :, 1:-1, :-2])
    along_y = 0.5 * (p[:, :, 2:, 1:-1] - p[:, :, :-2, 1:-1])
    return torch.cat([x_B1hw, along_x, along_y], 1)


def _jacobian(p_BN3: Tensor, z_BN1: Tensor, q_BN1: Tensor, slope_BN2: Tensor) -> Tensor:
    """(B, N, 6) of the image at the projection of ``exp(w) p + q v``, by [w, v]."""
    p = p_BN3 / z_BN1
    # With (a, b) the slope, d image = a d(p_x / p_z) + b d(p_y / p_z) = g . d p / p_z.
    g = torch.cat([slope_BN2, -(slope_BN2 * p[..., :2]).sum(2, keepdim=True)], 2)
    return torch.cat([torch.linalg.cross(p, g), g * (q_BN1 / z_BN1)], 2)


def _rotation_matrix(q_B4: Tensor) -> Tensor:
    """(B, 3, 3) of unit quaternions."""
    axes = torch.eye(3, device=q_B4.device, dtype=q_B4.dtype)
    return torch.stack([rotate(q_B4, axis.expand_as(q_B4[:, :3])) for axis in axes], 2)


def inverse_spd(A_BNN: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices by Gauss-Jordan: plain tensor operations, so that it exports."""
    n = A_BNN.shape[1]
    unit = torch.eye(n, device=A_BNN.device, dtype=A_BNN.dtype)
    M = torch.cat([A_BNN, unit.expand_as(A_BNN)], 2)
    for k in range(n):
        row = M[:, k : k + 1] / M[:, k : k + 1, k : k + 1]
        M = M - (M[:, :, k : k + 1] - unit[:, k : k + 1]) * row
    return M[:, :, n:]
