"""A global image descriptor: the pooled, normalised coarse features of an encoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.encoders.layers import Encoder


def pooled(coarse_BChw: Tensor) -> Tensor:
    """(B, C) mean over coarse features, of unit length."""
    return F.normalize(coarse_BChw.mean((2, 3)), dim=1)


class DescriptorOutput(NamedTuple):
    """``descriptor_BC``: (B, C) of unit length."""

    descriptor_BC: Tensor


class GlobalDescriptor(nn.Module):
    """Average-pooled coarse features, L2-normalised."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image_B3HW: Tensor) -> DescriptorOutput:
        return DescriptorOutput(pooled(self.encoder(image_B3HW).coarse))
