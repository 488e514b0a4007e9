"""PoseNet: absolute pose regression (ICCV 2015) with a VO head on the same encoder.

The absolute head is any of ``heads`` (PoseNet, LSTM-PoseNet, AtLoc), or that of ``anchors``.

One call is one step of a stream: it takes an image and the fine features of the frame before, and gives the absolute
pose, the motion between the two frames, a spread for each, and the features to hand to the next step.
"""

from __future__ import annotations

from typing import NamedTuple

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
        texture_B1hw: state for the next step.
    """

    t_B3: Tensor
    q_B4: Tensor
    log_sigma_B6: Tensor
    rel_B6: Tensor
    rel_log_sigma_B6: Tensor
    descriptor_BC: Tensor
    texture_B1hw: Tensor


class PoseNet(nn.Module):
    """Encoder, absolute head and motion head.

    Args:
        encoder: any of ``backbones``.
        absolute: ``absolute(coarse_BChw) -> (t_B3, q_B4, log_sigma_B6)``.
        size_hw: height and width of the input, pixels, multiples of 32.
    """

    def __init__(self, encoder: Encoder, absolute: nn.Module, size_hw: tuple[int, int]) -> None:
        super().__init__()
        height, width = size_hw
        self.encoder = encoder
        self.absolute = absolute
        self.motion = MotionHead(encoder.fine_channels, encoder.coarse_channels)
        self.state_shapes = ((1, height // 2, width // 2),)

    def forward(self, image_B3HW: Tensor, texture_prev_B1hw: Tensor) -> PosenetOutput:
        features = self.encoder(image_B3HW)
        texture = self.motion.features(image_B3HW)
        inverse_depth = self.motion.inverse_depth(features.fine, features.coarse)
        rel, rel_log_sigma = self.motion(texture_prev_B1hw, texture, inverse_depth)
        t, q, log_sigma = self.absolute(features.coarse)
        descriptor = F.normalize(features.coarse.mean((2, 3)), dim=1)
        return PosenetOutput(t, q, log_sigma, rel, rel_log_sigma, descriptor, texture)
