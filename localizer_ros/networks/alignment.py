"""Direct alignment: the rigid motion between two images, given the depth of the newest one.

Gauss-Newton on brightness over an image pyramid (Engel et al., "Semi-dense visual odometry for a monocular camera",
ICCV 2013). Nothing here is learned. Everything is written with few, large operations that export: a step is repeated
many times in an exported network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AlignmentLevel(NamedTuple):
    """Two frames at one level of the pyramid, N = h w pixels of the newest one.

    Attributes:
        prev_B3hw: the frame before, image and its derivatives along x and y.
        cur_B1N: the newest frame.
        cur_slope_B2N: its derivatives along x and y.
        cur_known_B1N: 1 where it shows something, 0 where it is black.
        inverse_depth_B1N: of the newest frame, 1 / metres.
        rays_3N: directions of its pixels, z = 1.
        focal_21: focal lengths, pixels of the level.
        to_grid_21: factor and ``grid_shift_21`` from the plane z = 1 to the frame before, from -1 to 1.
    """

    prev_B3hw: Tensor
    cur_B1N: Tensor
    cur_slope_B2N: Tensor
    cur_known_B1N: Tensor
    inverse_depth_B1N: Tensor
    rays_3N: Tensor
    focal_21: Tensor
    to_grid_21: Tensor
    grid_shift_21: Tensor


class AlignmentStep(NamedTuple):
    """What a step of Gauss-Newton leads to.

    Attributes:
        R_B33: rotation of ``T_prev_cur`` of the optical centre.
        t_B31: its translation, metres.
        covariance_B66: of both, by the residuals.
        residual_B1: their size.
        by_contrast_B6: derivative of both by the depths' contrast.
    """

    R_B33: Tensor
    t_B31: Tensor
    covariance_B66: Tensor
    residual_B1: Tensor
    by_contrast_B6: Tensor


class Alignment(nn.Module):
    """Steps of Gauss-Newton on ``T_prev_cur`` of the optical centre."""

    # Residuals, in local standard deviations of the image, beyond which a pixel is taken for something else.
    outlier = 0.5
    # Where an image says little of a direction, no motion is the answer: share of what it says on average.
    damping = 1e-4

    generators_39: Tensor
    unit_66: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Rotation vector to the nine elements of its skew matrix.
        generators = torch.zeros(3, 3, 3)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            generators[i, k, j], generators[i, j, k] = 1.0, -1.0
        self.register_buffer("generators_39", generators.flatten(1), persistent=False)
        self.register_buffer("unit_66", torch.eye(6), persistent=False)

    def step(
        self, R_B33: Tensor, t_B31: Tensor, level: AlignmentLevel, inverse_depth_scale: Tensor
    ) -> AlignmentStep:
        """One step from a motion.

        Args:
            R_B33: rotation of ``T_prev_cur`` so far.
            t_B31: its translation, metres.
            level: what to align.
            inverse_depth_scale: () typical of the scene, 1 / metres.
        """
        q_B1N = level.inverse_depth_B1N
        h, w = level.prev_B3hw.shape[2:]
        jacobian_B6N, error_B1N, trust_B1N = self._linearized(R_B33, t_B31, level)
        weighted_BN6 = (jacobian_B6N * (trust_B1N * (1.0 / (h * w)))).transpose(1, 2)
        normal = jacobian_B6N @ weighted_BN6
        gradient = error_B1N @ weighted_BN6
        scale_6 = torch.cat([q_B1N.new_ones(3), inverse_depth_scale.square().expand(3)])
        mean = (normal * self.unit_66).sum((1, 2), keepdim=True).clamp_min(6e-3)
        inverse_B66 = inverse_spd(normal + (self.damping / 6.0) * mean * self.unit_66 * scale_6)
        turn_B13, move_B13 = (gradient @ inverse_B66).split(3, 2)
        turn_B33 = self._small_rotation(turn_B13[:, 0])
        trusted_B1 = trust_B1N.sum(2).clamp_min(1.0)
        residual_B1 = (trust_B1N * error_B1N.square()).sum(2) / trusted_B1
        mean_B1 = (trust_B1N * q_B1N).sum(2) / trusted_B1
        moved_B1N = (jacobian_B6N[:, 3:] * t_B31).sum(1, keepdim=True) * (1.0 - mean_B1[..., None] / q_B1N)
        by_contrast_B6 = -(moved_B1N @ weighted_BN6 @ inverse_B66)[:, 0]
        covariance_B66 = inverse_B66 * (residual_B1 * (1.0 / (h * w))).clamp_min(1e-9)[..., None]
        return AlignmentStep(
            turn_B33 @ R_B33,
            turn_B33 @ t_B31 + move_B13.transpose(1, 2),
            covariance_B66,
            residual_B1.clamp_min(1e-6).sqrt(),
            by_contrast_B6,
        )

    def _linearized(
        self, R_B33: Tensor, t_B31: Tensor, level: AlignmentLevel
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 6, N) derivative of what each pixel sees by [rotation, translation], (B, 1, N) its error, and (B, 1, N)
        how far it is trusted, 0 to 1."""
        q_B1N = level.inverse_depth_B1N
        b, _, h, w = level.prev_B3hw.shape
        p_x, p_y, p_z = (R_B33 @ level.rays_3N + t_B31 * q_B1N).split(1, 1)
        p_z = p_z.clamp_min(0.1)
        x, y, scaled = p_x / p_z, p_y / p_z, q_B1N / p_z
        grid_B2N = torch.cat([x, y], 1) * level.to_grid_21 + level.grid_shift_21
        grid = grid_B2N.transpose(1, 2).reshape(b, h, w, 2)
        seen_B1N, slope_B2N = (
            F.grid_sample(level.prev_B3hw, grid, align_corners=False).flatten(2).split([1, 2], 1)
        )
        inside_B1N = (grid_B2N.abs().amax(1, keepdim=True) < 0.98).to(q_B1N.dtype) * level.cur_known_B1N
        error_B1N = (level.cur_B1N - seen_B1N) * inside_B1N
        trust_B1N = inside_B1N / (1.0 + (error_B1N * (1.0 / self.outlier)).square())
        # The mean of both images' gradients converges as fast as second order (Benhimane and Malis, 2004).
        slope_x, slope_y = ((slope_B2N + level.cur_slope_B2N) * (0.5 * level.focal_21)).split(1, 1)
        # By [w, v], where p moves by w x p + q v: the image changes by g . dp / p_z, g = (slope_x, slope_y, slope_z).
        slope_z = -(slope_x * x + slope_y * y)
        jacobian_B6N = torch.cat(
            [
                y * slope_z - slope_y,
                slope_x - x * slope_z,
                x * slope_y - y * slope_x,
                slope_x * scaled,
                slope_y * scaled,
                slope_z * scaled,
            ],
            1,
        )
        return jacobian_B6N, error_B1N, trust_B1N

    def _small_rotation(self, w_B3: Tensor) -> Tensor:
        """(B, 3, 3) of rotation vectors of one step; exact to 1e-9 up to half a radian."""
        W: Tensor = (w_B3 @ self.generators_39).unflatten(1, (3, 3))
        square = w_B3.square().sum(1)[:, None, None]
        sine = 1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0))
        cosine = 0.5 - square / 24.0 * (1.0 - square / 30.0 * (1.0 - square / 56.0))
        return self.unit_66[:3, :3] + sine * W + cosine * (W @ W)

    def rotation_vector(self, R_B33: Tensor) -> Tensor:
        """(B, 3) rotation vectors, radians, of rotations by less than half a turn."""
        flat = R_B33.flatten(1)
        v = 0.5 * (flat @ self.generators_39.T)
        sine = v.square().sum(1, keepdim=True).clamp_min(1e-14).sqrt()
        cosine = 0.5 * (flat @ self.unit_66[:3, :3].reshape(9, 1) - 1.0)
        return v * (torch.atan2(sine, cosine) / sine)


def at_level(
    prev_B1hw: Tensor, cur_B1hw: Tensor, inverse_depth_Bhw: Tensor, intrinsics_4: Tensor, stride: int
) -> AlignmentLevel:
    """Two frames at one level of the pyramid.

    Args:
        prev_B1hw: the frame before at stride 2, grey, of equal local contrast.
        cur_B1hw: the newest frame; exactly zero where it is black.
        inverse_depth_Bhw: of the newest frame, 1 / metres, at any stride.
        intrinsics_4: fx, fy, cx, cy of the network's image, pixels.
        stride: pixels of the network's image along a side of one of the level's.
    """
    prev, cur = (_with_gradient(_blurred(F.avg_pool2d(x, stride // 2))) for x in (prev_B1hw, cur_B1hw))
    known = F.avg_pool2d((cur_B1hw != 0.0).to(cur.dtype), stride // 2) > 0.9
    h, w = cur.shape[2:]
    focal_2 = intrinsics_4[:2] / stride
    centre_2 = (intrinsics_4[2:] - 0.5 * (stride - 1.0)) / stride
    size_2 = focal_2.new_tensor([w, h])
    cur_B1N, cur_slope_B2N = cur.flatten(2).split([1, 2], 1)
    return AlignmentLevel(
        prev,
        cur_B1N,
        cur_slope_B2N,
        known.to(cur.dtype).flatten(2),
        F.interpolate(inverse_depth_Bhw[:, None], (h, w), mode="bilinear").flatten(2),
        pixel_rays(h, w, focal_2, centre_2),
        focal_2[:, None],
        (2.0 * focal_2 / size_2)[:, None],
        ((2.0 * centre_2 + 1.0) / size_2 - 1.0)[:, None],
    )


def pixel_rays(h: int, w: int, focal_2: Tensor, centre_2: Tensor) -> Tensor:
    """(3, h w) directions of the pixels of a pinhole image, z = 1."""
    ys, xs = torch.meshgrid(
        torch.arange(h, device=focal_2.device, dtype=focal_2.dtype),
        torch.arange(w, device=focal_2.device, dtype=focal_2.dtype),
        indexing="ij",
    )
    xy = (torch.stack([xs, ys]).flatten(1) - centre_2[:, None]) / focal_2[:, None]
    return torch.cat([xy, torch.ones_like(xy[:1])])


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


def rotation_matrix(q_4: Tensor) -> Tensor:
    """(3, 3) of a unit quaternion (x, y, z, w)."""
    x, y, z, w = q_4.unbind()
    return torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]),
            torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]),
            torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]),
        ]
    )


def inverse_spd(A_BNN: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices by Gauss-Jordan in place; plain products, so that it exports.

    Pivot k: ``A <- A - (column_k - e_k) (row_k + e_k)^T / a_kk``. No pivoting is needed.
    """
    unit = torch.eye(A_BNN.shape[1], device=A_BNN.device, dtype=A_BNN.dtype)
    for column_N1, row_1N in zip(unit.split(1, 1), unit.split(1, 0), strict=True):
        column, row = A_BNN @ column_N1, row_1N @ A_BNN
        A_BNN = A_BNN - (column - column_N1) @ ((row + row_1N) / (row @ column_N1))
    return A_BNN
