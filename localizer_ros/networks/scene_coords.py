"""Scene coordinate regression: where in the map lies what each cell of the image shows.

Shotton et al. (CVPR 2013) with trees, Brachmann et al. (DSAC, CVPR 2017) with networks. The pose follows from the cells
by perspective-n-point in RANSAC: geometry extrapolates where regression of poses can only interpolate, and cells that
show nothing known fall out as outliers. The depth for visual odometry comes from the same encoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.descriptor import pooled
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.scene_network import SceneNetwork

# Log errors of coordinates (metres) stay within these: 2 mm and 20 m.
_LOG_SIGMA_LIMITS = (-6.0, 3.0)


class SceneCoordinatesOutput(NamedTuple):
    """Answers for one image each.

    Attributes:
        points_B3hw: map coordinates, metres, of what the centre of each cell of 8 px shows.
        log_sigma_Bhw: log of their errors, metres.
        inverse_depth_Bhw: 1 / metres of what each cell shows.
        descriptor_BC: pooled coarse features, unit length.
    """

    points_B3hw: Tensor
    log_sigma_Bhw: Tensor
    inverse_depth_Bhw: Tensor
    descriptor_BC: Tensor


class CoordinateHead(nn.Module):
    """Fine and coarse features to coordinates: the coarse ones say which part of the place, the fine ones where in it.

    Attributes:
        centre: (3,) buffer, mean of the training points, metres.
        scale: () buffer, how far they reach from there, metres.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, fine_channels: int, coarse_channels: int, width: int) -> None:
        super().__init__()
        self.context = nn.Conv2d(coarse_channels, width, 1)
        self.detail = nn.Conv2d(fine_channels, width // 2, 3, padding=1)
        self.layers = nn.Sequential(
            nn.Conv2d(width + width // 2, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
        )
        self.points = nn.Conv2d(width, 3, 1)
        self.sigma = nn.Conv2d(width, 1, 1)
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, fine_BFhw: Tensor, coarse_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, 3, h, w) and the log of their errors (B, h, w)."""
        context = F.interpolate(F.relu(self.context(coarse_BChw)), fine_BFhw.shape[2:], mode="bilinear")
        x: Tensor = self.layers(torch.cat([context, F.relu(self.detail(fine_BFhw))], 1))
        points = self.centre[:, None, None] + self.scale * self.points(x)
        log_sigma: Tensor = self.sigma(x.detach())[:, 0]
        return points, log_sigma.clamp(*_LOG_SIGMA_LIMITS)


class SceneCoordinates(SceneNetwork):
    """Encoder, coordinate head and motion head.

    Args:
        encoder: any of ``encoders``.
        width: channels of the coordinate head.
    """

    motion: MotionHead

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.coordinates = CoordinateHead(encoder.fine_channels, encoder.coarse_channels, width)
        self.motion = MotionHead(encoder.fine_channels, encoder.coarse_channels)

    def forward(self, image_B3HW: Tensor) -> SceneCoordinatesOutput:
        features = self.encoder(image_B3HW)
        points, log_sigma = self.coordinates(*features)
        inverse_depth = self.motion.inverse_depth(*features)
        return SceneCoordinatesOutput(points, log_sigma, inverse_depth, pooled(features.coarse))
