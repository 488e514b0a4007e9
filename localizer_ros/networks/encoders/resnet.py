"""ResNet (He et al., CVPR 2016), without pooling and classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.encoders.layers import BatchNorm, Conv, Encoder, Layers, StridePadding, conv_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, stride_padding: StridePadding) -> None:
        super().__init__()
        self.conv1 = Conv(in_channels, channels, 3, stride, stride_padding=stride_padding)
        self.bn1 = BatchNorm(channels)
        self.conv2 = Conv(channels, channels, 3)
        self.bn2 = BatchNorm(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = Layers(Conv(in_channels, channels, 1, stride), BatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Encoder):
    """ResNet-18 (depths 2, 2, 2, 2) or ResNet-34 (3, 4, 6, 3) without pooling and classifier."""

    fine_channels = 128
    coarse_channels = 512

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depths: tuple[int, int, int, int], stride_padding: StridePadding) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, 2, stride_padding=stride_padding)
        self.bn1 = BatchNorm(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for index, depth in enumerate(depths):
            width = 64 << index
            blocks: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, stride_padding))
                channels = width
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))

    def fine_layers(self) -> nn.Sequential:
        return Layers(self.conv1, self.bn1, nn.ReLU(), self.maxpool, self.layer1, self.layer2)

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(self.layer3, self.layer4)
