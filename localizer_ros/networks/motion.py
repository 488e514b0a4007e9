"""Visual odometry: depth from the encoder's features, motion by aligning the frame before with the newest one.

The head guesses how far away everything in the newest frame is, and then solves for the one rigid motion that explains
what the frame before shows (``alignment``; Tang and Tan, "BA-Net", ICLR 2019, have it inside a network too). Geometry
does what fully connected layers would have to learn: a motion needs no training poses near it, and it is metric as far
as the depth is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.alignment import Alignment, at_level, pixel_rays, rotation_matrix
from localizer_ros.networks.poses import Pose


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

    Attributes:
        intrinsics_4: buffer, fx, fy, cx, cy of the network's image, pixels; see :meth:`set_camera`.
        t_cam_refined, q_cam_refined: buffers, the optical centre on the body whose motion is wanted:
            ``T_cam_refined``, metres and (x, y, z, w); see :meth:`set_camera`.
        inverse_depth_scale: () buffer, 1 / metres, typical of the scene. Set from the training data.
    """

    # The coarsest level finds turns of about a tenth of the image's width; one last step at the finest makes them
    # precise.
    pyramid = (Level(16, 3), Level(8, 2), Level(4, 2))
    # Fewer pixels do not hold six degrees of freedom: levels of small images that have no more are left out.
    fewest_pixels = 150
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
    # Log standard deviations of motions (rad, metres) stay within these: 1e-4 and 7.
    log_sigma_limits = (-9.0, 2.0)
    # Log of depths over the typical one: within these, a factor of 55 nearer and further.
    log_depth_limits = (-4.0, 4.0)

    intrinsics_4: Tensor
    t_cam_refined: Tensor
    q_cam_refined: Tensor
    inverse_depth_scale: Tensor

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
        self.sigma = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 6))
        self.alignment = Alignment()
        self.register_buffer("intrinsics_4", torch.tensor([200.0, 200.0, 127.5, 95.5]))
        self.register_buffer("t_cam_refined", torch.zeros(3))
        self.register_buffer("q_cam_refined", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        self.register_buffer("inverse_depth_scale", torch.tensor(0.5))
        for last in (self.depth[-1], self.sigma[-1]):
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
        return pixel_rays(h, w, self.intrinsics_4[:2] / 8.0, (self.intrinsics_4[2:] - 3.5) / 8.0).T

    def inverse_depth(self, fine_BFhw: Tensor, coarse_BChw: Tensor) -> Tensor:
        """(B, h, w) 1 / metres of each cell of stride 8."""
        context = F.interpolate(F.relu(self.context(coarse_BChw)), fine_BFhw.shape[2:], mode="bilinear")
        log_ratio: Tensor = self.depth(torch.cat([context, fine_BFhw], 1))[:, 0]
        return self.inverse_depth_scale * log_ratio.clamp(*self.log_depth_limits).exp()

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
        unit_66 = self.alignment.unit_66
        R, t = unit_66[:3, :3].expand(b, 3, 3), self.t_cam_refined.new_zeros(b, 3, 1)
        with torch.no_grad():
            for stride, steps in self.pyramid:
                if stride > finest and (2 * h // stride) * (2 * w // stride) >= self.fewest_pixels:
                    level = at_level(prev_B1hw, cur_B1hw, inverse_depth_Bhw, self.intrinsics_4, stride)
                    for _ in range(steps):
                        R, t = self.alignment.step(R, t, level, self.inverse_depth_scale)[:2]
        # At the optimum one more step has the gradient of the whole solution.
        level = at_level(prev_B1hw, cur_B1hw, inverse_depth_Bhw, self.intrinsics_4, finest)
        R, t, covariance_B66, residual_B1, by_contrast_B6 = self.alignment.step(
            R, t, level, self.inverse_depth_scale
        )
        sigma_B6 = (covariance_B66.detach() * unit_66).sum(2).sqrt()
        correlation = covariance_B66.detach() / (sigma_B6[:, :, None] * sigma_B6[:, None])
        known = torch.cat([sigma_B6.log(), residual_B1.log()], 1).detach()
        log_sigma = known[:, :6] + self.sigma(known)
        # The motion of the body, which the camera is fixed to: T_cam_refined T_prev_cur T_cam_refined^-1.
        R_cam_refined, t_cam_refined = rotation_matrix(self.q_cam_refined), self.t_cam_refined[:, None]
        R = R_cam_refined @ R @ R_cam_refined.T
        t = R_cam_refined @ t + t_cam_refined - R @ t_cam_refined
        # Errors are left in the optical frame: the extrinsics are a small correction of the poses that were given.
        rel = torch.cat([self.alignment.rotation_vector(R), t[..., 0]], 1)
        return MotionOutput(
            rel, log_sigma.clamp(*self.log_sigma_limits), correlation, self.contrast * by_contrast_B6.detach()
        )

    def _local_mean(self, x_B1hw: Tensor) -> Tensor:
        padding = (self.window - self.window_step) // 2
        mean = F.avg_pool2d(x_B1hw, self.window, self.window_step, padding, count_include_pad=False)
        return F.interpolate(mean, x_B1hw.shape[2:], mode="bilinear")
