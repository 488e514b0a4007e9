"""A global image descriptor: the pooled, normalised coarse features of an encoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.backbones import Encoder


class DescriptorOutput(NamedTuple):
    """``descriptor_BC``: (B, C) of unit length."""

    descriptor_BC: Tensor


class GlobalDescriptor(nn.Module):
    """Average-pooled coarse features, L2-normalised."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image_B3HW: Tensor) -> DescriptorOutput:
        return DescriptorOutput(F.normalize(self.encoder(image_B3HW).coarse.mean((2, 3)), dim=1))
