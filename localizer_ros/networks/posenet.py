"""PoseNet: absolute pose regression (ICCV 2015) with the depth that visual odometry needs, on the same encoder.

The absolute head is any of ``heads`` (PoseNet, LSTM-PoseNet, AtLoc), or that of ``anchors``. The motion between frames
is solved for by a second, small network (``motion_step``) from the images and the depth: it needs single precision,
which this one does not.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from localizer_ros.networks.descriptor import pooled
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.scene_network import SceneNetwork


class PosenetOutput(NamedTuple):
    """Answers for one image each.

    Attributes:
        t_B3: camera position in the map, metres.
        q_B4: orientation quaternion (x, y, z, w) of the camera in the map, not normalised.
        log_sigma_B6: log of the standard deviations of [rotation (rad), translation (m)] in the tangent of the pose.
        inverse_depth_Bhw: 1 / metres of what each cell of 8 px shows.
        descriptor_BC: pooled coarse features, unit length.
    """

    t_B3: Tensor
    q_B4: Tensor
    log_sigma_B6: Tensor
    inverse_depth_Bhw: Tensor
    descriptor_BC: Tensor


class PoseNet(SceneNetwork):
    """Encoder, absolute head and motion head.

    Args:
        encoder: any of ``encoders``.
        absolute: ``absolute(coarse_BChw) -> (t_B3, q_B4, log_sigma_B6)``.
    """

    motion: MotionHead

    def __init__(self, encoder: Encoder, absolute: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.absolute = absolute
        self.motion = MotionHead(encoder.fine_channels, encoder.coarse_channels)

    def forward(self, image_B3HW: Tensor) -> PosenetOutput:
        features = self.encoder(image_B3HW)
        t, q, log_sigma = self.absolute(features.coarse)
        inverse_depth = self.motion.inverse_depth(*features)
        return PosenetOutput(t, q, log_sigma, inverse_depth, pooled(features.coarse))
