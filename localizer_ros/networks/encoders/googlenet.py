"""GoogLeNet (Szegedy et al., CVPR 2015) with batch norms, without classifiers; the encoder of the first PoseNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.encoders.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchNorm,
    Conv,
    Encoder,
    StridePadding,
    conv_norm,
)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU, keyed conv and bn as in torchvision's GoogLeNet."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        stride_padding: StridePadding = "symmetric",
    ) -> None:
        super().__init__()
        self.conv = Conv(in_channels, channels, kernel, stride, stride_padding=stride_padding)
        self.bn = BatchNorm(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(conv_norm(x, self.conv, self.bn))


class Inception(nn.Module):
    """1x1, 3x3, once more 3x3 (5x5 in the paper, not in the published weights) and pooling, side by side."""

    def __init__(
        self, in_channels: int, one: int, to_three: int, three: int, to_five: int, five: int, pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvNorm(in_channels, one, 1)
        self.branch2 = nn.Sequential(ConvNorm(in_channels, to_three, 1), ConvNorm(to_three, three, 3))
        self.branch3 = nn.Sequential(ConvNorm(in_channels, to_five, 1), ConvNorm(to_five, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvNorm(in_channels, pooled, 1))
        self.channels = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InputScale(nn.Module):
    """From ImageNet's mean and deviation, which all encoders take, to -1..1, which GoogLeNet's weights expect."""

    factor: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("factor", (std / 0.5).view(3, 1, 1), persistent=False)
        self.register_buffer("offset", ((mean - 0.5) / 0.5).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


# As the arguments of Inception: table 1 of the paper.
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(Encoder):
    """GoogLeNet without its classifiers, the encoder of the first PoseNet."""

    fine_channels = 480
    coarse_channels = 1024

    def __init__(self, stride_padding: StridePadding) -> None:
        super().__init__()
        self.scale = InputScale()
        self.conv1 = ConvNorm(3, 64, 7, 2, stride_padding)
        self.conv2 = ConvNorm(64, 64, 1)
        self.conv3 = ConvNorm(64, 192, 3)
        channels = 192
        for name, widths in _INCEPTION.items():
            block = Inception(channels, *widths)
            setattr(self, f"inception{name}", block)
            channels = block.channels
        self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(2, 2)

    def _stage(self, number: str) -> list[nn.Module]:
        return [getattr(self, f"inception{name}") for name in _INCEPTION if name[0] == number]

    def fine_layers(self) -> nn.Sequential:
        return nn.Sequential(
            self.scale,
            self.conv1,
            self.pool3,
            self.conv2,
            self.conv3,
            self.pool3,
            *self._stage("3"),
        )

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(self.pool3, *self._stage("4"), self.pool2, *self._stage("5"))
