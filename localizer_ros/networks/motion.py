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

from localizer_ros.networks.poses import Pose


class Level(NamedTuple):
    """One level of the pyramid.

    Attributes:
        stride: pixels of the network's image along a side of one of its pixels.
        steps: of Gauss-Newton.
    """

    stride: int
    steps: int


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


class MotionOutput(NamedTuple):
    """A motion.

    Attributes:
        rel_B6: [rotation vector (rad), translation (m)] of ``T_prev_cur``.
        log_sigma_B6: log of its standard deviations.
        correlation_B66: of its errors, as far as the images tell: a turn about y looks much like a move along x.
        depth_error_B6: one more error (1 sigma), of all six together: what the motion changes by where the contrast of
            depths, near against far, changes by ``MotionHead.contrast``.
    """

    rel_B6: Tensor
    log_sigma_B6: Tensor
    correlation_B66: Tensor
    depth_error_B6: Tensor


class MotionHead(nn.Module):
    """Depth network and direct alignment; no parameter of the alignment is learned but the size of its errors.

    Args:
        fine_channels: of the encoder at stride 8.
        coarse_channels: of the encoder at stride 32.
    """

    # The coarsest level finds turns of about a tenth of the image's width; one last step at the finest makes them
    # precise.
    pyramid = (Level(16, 3), Level(8, 2), Level(4, 2))
    # Fewer pixels do not hold six degrees of freedom: levels of small images that have no more are left out.
    fewest_pixels = 150
    # Residuals, in local standard deviations of the image, beyond which a pixel is taken for something else.
    outlier = 0.5
    # Side of the window, in pixels of stride 2, over which brightness and contrast are made equal, and the distance
    # from one to the next. Windows side by side would be a grid that stays where it is when the image moves, and says
    # so: turns came out a tenth too small.
    window, window_step = 24, 4
    # Standard deviation of an image without texture, in units of the network's input (0.03 of the full range).
    flat = 0.13
    # Up to this, in units of the network's input, an image is black (3 levels of 255) and shows nothing, as outside the
    # view of an undistorted camera. Such a border does not move, and would say so.
    black = -1.93
    # Standard deviation of the contrast of depths, as a share: in places the network has not seen it guesses too flat,
    # or too deep, and what a move does to the image goes to the turn, the same way for seconds.
    contrast = 0.5
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
        # The optical centre on the body whose motion is wanted: ``T_cam_refined``. Set from the map of points.
        self.register_buffer("t_cam_refined", torch.zeros(3))
        self.register_buffer("q_cam_refined", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        # Rotation vector to the nine elements of its skew matrix.
        generators = torch.zeros(3, 3, 3)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            generators[i, k, j], generators[i, j, k] = 1.0, -1.0
        self.register_buffer("generators_39", generators.flatten(1), persistent=False)
        self.register_buffer("unit_66", torch.eye(6), persistent=False)
        # 1 / metres, typical of the scene. Set from the training data.
        self.register_buffer("inverse_depth_scale", torch.tensor(0.5))
        for last in (self.depth[-1], self.spread[-1]):
            assert isinstance(last, nn.Conv2d | nn.Linear) and last.bias is not None
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def set_camera(self, K: Tensor, T_cam_refined: Pose) -> None:
        """Set the calibration (3, 3) of the network's image, with integer pixels at their centres, and the place of
        the optical centre on the body whose motion is wanted."""
        self.intrinsics_4.copy_(torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]))
        self.t_cam_refined.copy_(T_cam_refined.t)
        self.q_cam_refined.copy_(T_cam_refined.q)

    def features(self, image_B3HW: Tensor) -> Tensor:
        """What is kept of a frame to be aligned with the next: (B, 1, H/2, W/2), grey, of equal local contrast; exactly
        zero where it is black, or within two pixels of that."""
        grey = image_B3HW.mean(1, keepdim=True)
        known = 1.0 - F.max_pool2d((grey <= self.black).to(grey.dtype), 6, 2, 2)
        grey = F.avg_pool2d(grey, 2) * known
        share = self._local_mean(known).clamp_min(1e-3)
        centred = (grey - self._local_mean(grey) / share) * known
        return centred / ((self._local_mean(centred.square()) / share).sqrt() + self.flat)

    def rays(self, h: int, w: int) -> Tensor:
        """(h w, 3) directions, z = 1, of the centres of the cells of stride 8."""
        return _rays(h, w, self.intrinsics_4[:2] / 8.0, (self.intrinsics_4[2:] - 3.5) / 8.0).T

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
        b, _, h, w = cur_B1hw.shape
        R, t = self.unit_66[:3, :3].expand(b, 3, 3), self.t_cam_refined.new_zeros(b, 3, 1)
        with torch.no_grad():
            for stride, steps in self.pyramid:
                if stride > finest and (2 * h // stride) * (2 * w // stride) >= self.fewest_pixels:
                    level = self._at_level(prev_B1hw, cur_B1hw, inverse_depth_Bhw, stride)
                    for _ in range(steps):
                        R, t = self._step(R, t, level)[:2]
        # At the optimum one more step has the gradient of the whole solution.
        level = self._at_level(prev_B1hw, cur_B1hw, inverse_depth_Bhw, finest)
        R, t, covariance_B66, residual_B1, by_contrast_B6 = self._step(R, t, level)
        sigma_B6 = (covariance_B66.detach() * self.unit_66).sum(2).sqrt()
        correlation = covariance_B66.detach() / (sigma_B6[:, :, None] * sigma_B6[:, None])
        known = torch.cat([sigma_B6.log(), residual_B1.log()], 1).detach()
        log_sigma = known[:, :6] + self.spread(known)
        # The motion of the body, which the camera is fixed to: T_cam_refined T_prev_cur T_cam_refined^-1.
        R_cam_refined, t_cam_refined = rotation_matrix(self.q_cam_refined), self.t_cam_refined[:, None]
        R = R_cam_refined @ R @ R_cam_refined.T
        t = R_cam_refined @ t + t_cam_refined - R @ t_cam_refined
        # Errors are left in the optical frame: the mounting is a small correction of the poses that were given.
        rel = torch.cat([self._rotation_vector(R), t[..., 0]], 1)
        return MotionOutput(
            rel, log_sigma.clamp(-9.0, 2.0), correlation, self.contrast * by_contrast_B6.detach()
        )

    def _local_mean(self, x_B1hw: Tensor) -> Tensor:
        padding = (self.window - self.window_step) // 2
        mean = F.avg_pool2d(x_B1hw, self.window, self.window_step, padding, count_include_pad=False)
        return F.interpolate(mean, x_B1hw.shape[2:], mode="bilinear")

    def _at_level(
        self, prev_B1hw: Tensor, cur_B1hw: Tensor, inverse_depth_Bhw: Tensor, stride: int
    ) -> AlignmentLevel:
        prev, cur = (_with_gradient(_blurred(F.avg_pool2d(x, stride // 2))) for x in (prev_B1hw, cur_B1hw))
        known = F.avg_pool2d((cur_B1hw != 0.0).to(cur.dtype), stride // 2) > 0.9
        h, w = cur.shape[2:]
        focal_2 = self.intrinsics_4[:2] / stride
        centre_2 = (self.intrinsics_4[2:] - 0.5 * (stride - 1.0)) / stride
        size_2 = focal_2.new_tensor([w, h])
        cur_B1N, cur_slope_B2N = cur.flatten(2).split([1, 2], 1)
        return AlignmentLevel(
            prev,
            cur_B1N,
            cur_slope_B2N,
            known.to(cur.dtype).flatten(2),
            F.interpolate(inverse_depth_Bhw[:, None], (h, w), mode="bilinear").flatten(2),
            _rays(h, w, focal_2, centre_2),
            focal_2[:, None],
            (2.0 * focal_2 / size_2)[:, None],
            ((2.0 * centre_2 + 1.0) / size_2 - 1.0)[:, None],
        )

    def _step(self, R_B33: Tensor, t_B31: Tensor, level: AlignmentLevel) -> AlignmentStep:
        """One step of Gauss-Newton on ``T_prev_cur`` of the optical centre.

        Written with few, large operations: a step is repeated many times in an exported network, from which what no
        later step needs is left out.
        """
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
        weighted_BN6 = (jacobian_B6N * (trust_B1N * (1.0 / (h * w)))).transpose(1, 2)
        normal = jacobian_B6N @ weighted_BN6
        gradient = error_B1N @ weighted_BN6
        scale_6 = torch.cat([q_B1N.new_ones(3), self.inverse_depth_scale.square().expand(3)])
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

    def _small_rotation(self, w_B3: Tensor) -> Tensor:
        """(B, 3, 3) of rotation vectors of one step; exact to 1e-9 up to half a radian."""
        W = (w_B3 @ self.generators_39).unflatten(1, (3, 3))
        square = w_B3.square().sum(1)[:, None, None]
        sine = 1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0))
        cosine = 0.5 - square / 24.0 * (1.0 - square / 30.0 * (1.0 - square / 56.0))
        return self.unit_66[:3, :3] + sine * W + cosine * (W @ W)

    def _rotation_vector(self, R_B33: Tensor) -> Tensor:
        """(B, 3) rotation vectors, radians, of rotations by less than half a turn."""
        flat = R_B33.flatten(1)
        v = 0.5 * (flat @ self.generators_39.T)
        sine = v.square().sum(1, keepdim=True).clamp_min(1e-14).sqrt()
        cosine = 0.5 * (flat @ self.unit_66[:3, :3].reshape(9, 1) - 1.0)
        return v * (torch.atan2(sine, cosine) / sine)


def _rays(h: int, w: int, focal_2: Tensor, centre_2: Tensor) -> Tensor:
    """(3, h w) directions of the pixels, z = 1."""
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
