"""The motion head as a network of its own, for export: one step of a stream of images.

It always runs in single precision: the normal equations of an alignment do not survive half precision, while everything
that is learned does.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from localizer_ros.networks.motion import MotionHead


class MotionStepOutput(NamedTuple):
    """One step.

    Attributes:
        rel_B6: motion since the frame before, [rotation vector (rad), translation (m)] of ``T_prev_cur``.
        rel_log_sigma_B6: log of its standard deviations.
        rel_correlation_B66: of its errors.
        rel_depth_error_B6: one more error (1 sigma), of all six together, see ``MotionOutput``.
        texture_B1hw: state for the next step.
    """

    rel_B6: Tensor
    rel_log_sigma_B6: Tensor
    rel_correlation_B66: Tensor
    rel_depth_error_B6: Tensor
    texture_B1hw: Tensor


class MotionStep(nn.Module):
    """Aligns each image with the one before, given its depth.

    Args:
        motion: the head of a trained network.
        size_hw: height and width of the image, pixels, multiples of 32.
    """

    def __init__(self, motion: MotionHead, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.motion = motion
        self.state_shapes = ((1, size_hw[0] // 2, size_hw[1] // 2),)

    def forward(
        self, image_B3HW: Tensor, inverse_depth_Bhw: Tensor, texture_prev_B1hw: Tensor
    ) -> MotionStepOutput:
        texture = self.motion.features(image_B3HW)
        motion = self.motion(texture_prev_B1hw, texture, inverse_depth_Bhw)
        return MotionStepOutput(
            motion.rel_B6, motion.log_sigma_B6, motion.correlation_B66, motion.depth_error_B6, texture
        )
