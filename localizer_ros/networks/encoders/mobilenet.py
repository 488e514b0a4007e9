"""MobileNetV2 (Sandler et al., CVPR 2018) and V3 (Howard et al., ICCV 2019), without classifier."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.encoders.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Encoder,
    Layers,
    StridePadding,
)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, expansion: int, stride_padding: StridePadding
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [ConvNormAct(Conv(in_channels, hidden, 1))]
        layers += [
            ConvNormAct(Conv(hidden, hidden, 3, stride, hidden, stride_padding=stride_padding)),
            Conv(hidden, channels, 1),
            BatchNorm(channels),
        ]
        self.conv = Layers(*layers)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class BlocksV2(NamedTuple):
    """Blocks of one width, a row of table 2 of the paper: t, c, n and s there."""

    expansion: int
    channels: int
    repeats: int
    first_stride: int


_V2 = (
    BlocksV2(1, 16, 1, 1),
    BlocksV2(6, 24, 2, 2),
    BlocksV2(6, 32, 3, 2),
    BlocksV2(6, 64, 4, 2),
    BlocksV2(6, 96, 3, 1),
    BlocksV2(6, 160, 3, 2),
    BlocksV2(6, 320, 1, 1),
)


class MobileNetV2(Encoder):
    """MobileNetV2 1.0 without classifier."""

    fine_channels = 32
    coarse_channels = 1280

    def __init__(self, stride_padding: StridePadding) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(Conv(3, 32, 3, 2, stride_padding=stride_padding))]
        channels = 32
        for row in _V2:
            for block in range(row.repeats):
                stride = row.first_stride if block == 0 else 1
                layers.append(InvertedResidual(channels, row.channels, stride, row.expansion, stride_padding))
                channels = row.channels
        layers.append(ConvNormAct(Conv(channels, self.coarse_channels, 1)))
        self.features = nn.Sequential(*layers)

    def fine_layers(self) -> nn.Sequential:
        return nn.Sequential(*list(self.features)[:7])

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(*list(self.features)[7:])


class SqueezeExcitation(nn.Module):
    """Channel attention from the pooled map."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class BlockV3(NamedTuple):
    """One block of a MobileNetV3: a row of tables 1 and 2 of the paper."""

    kernel: int
    hidden: int
    channels: int
    attention: bool
    hardswish: bool
    stride: int


V3_LARGE = (
    BlockV3(3, 16, 16, False, False, 1),
    BlockV3(3, 64, 24, False, False, 2),
    BlockV3(3, 72, 24, False, False, 1),
    BlockV3(5, 72, 40, True, False, 2),
    BlockV3(5, 120, 40, True, False, 1),
    BlockV3(5, 120, 40, True, False, 1),
    BlockV3(3, 240, 80, False, True, 2),
    BlockV3(3, 200, 80, False, True, 1),
    BlockV3(3, 184, 80, False, True, 1),
    BlockV3(3, 184, 80, False, True, 1),
    BlockV3(3, 480, 112, True, True, 1),
    BlockV3(3, 672, 112, True, True, 1),
    BlockV3(5, 672, 160, True, True, 2),
    BlockV3(5, 960, 160, True, True, 1),
    BlockV3(5, 960, 160, True, True, 1),
)
V3_SMALL = (
    BlockV3(3, 16, 16, True, False, 2),
    BlockV3(3, 72, 24, False, False, 2),
    BlockV3(3, 88, 24, False, False, 1),
    BlockV3(5, 96, 40, True, True, 2),
    BlockV3(5, 240, 40, True, True, 1),
    BlockV3(5, 240, 40, True, True, 1),
    BlockV3(5, 120, 48, True, True, 1),
    BlockV3(5, 144, 48, True, True, 1),
    BlockV3(5, 288, 96, True, True, 2),
    BlockV3(5, 576, 96, True, True, 1),
    BlockV3(5, 576, 96, True, True, 1),
)


# Of every batch norm, as in the published weights.
_EPS_V3 = 1e-3


class InvertedResidualV3(nn.Module):
    """Expansion, depthwise convolution, optional squeeze-excitation, linear projection."""

    def __init__(self, in_channels: int, block: BlockV3, stride_padding: StridePadding) -> None:
        super().__init__()
        hidden = block.hidden
        activation = nn.Hardswish if block.hardswish else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(ConvNormAct(Conv(in_channels, hidden, 1), activation, _EPS_V3))
        depthwise = Conv(hidden, hidden, block.kernel, block.stride, hidden, stride_padding=stride_padding)
        layers.append(ConvNormAct(depthwise, activation, _EPS_V3))
        if block.attention:
            layers.append(SqueezeExcitation(hidden, _multiple_of_8(hidden // 4)))
        layers.append(ConvNormAct(Conv(hidden, block.channels, 1), None, _EPS_V3))
        self.block = nn.Sequential(*layers)
        self.shortcut = block.stride == 1 and in_channels == block.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y


def _multiple_of_8(value: int) -> int:
    rounded = max(8, (value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class MobileNetV3(Encoder):
    """MobileNetV3 without classifier.

    Args:
        table: ``V3_LARGE`` or ``V3_SMALL``.
        stride_padding: of the convolutions of stride 2.
    """

    def __init__(self, table: tuple[BlockV3, ...], stride_padding: StridePadding) -> None:
        super().__init__()
        channels = 16
        stride_so_far, self._fine_end = 2, 0
        layers: list[nn.Module] = [
            ConvNormAct(Conv(3, channels, 3, 2, stride_padding=stride_padding), nn.Hardswish, _EPS_V3)
        ]
        for block in table:
            layers.append(InvertedResidualV3(channels, block, stride_padding))
            channels = block.channels
            stride_so_far *= block.stride
            if stride_so_far == 8:
                self._fine_end, self.fine_channels = len(layers), channels
        self.coarse_channels = 6 * channels
        layers.append(ConvNormAct(Conv(channels, self.coarse_channels, 1), nn.Hardswish, _EPS_V3))
        self.features = nn.Sequential(*layers)

    def fine_layers(self) -> nn.Sequential:
        return nn.Sequential(*list(self.features)[: self._fine_end])

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(*list(self.features)[self._fine_end :])
