"""Image encoders in torchvision's key names, so that its weight files load; torchvision itself is not needed.

Every encoder maps (B, 3, H, W) to two maps: fine at stride 8, where motion between frames is still visible, and coarse
at stride 32. Batch norms are either frozen (running statistics
and fixed mode, right for pretrained weights and small batches, and the only choice for weights with folded norms) or
trained (right when starting from nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

StridePadding = Literal["symmetric", "same"]


class Features(NamedTuple):
    """What an encoder sees: fine (B, F, H/8, W/8) and coarse (B, C, H/32, W/32)."""

    fine: Tensor
    coarse: Tensor


class Encoder(nn.Module):
    """Base of all encoders: says how many channels the two maps have."""

    fine_channels: int
    coarse_channels: int

    def fine_layers(self) -> nn.Sequential:
        """The layers from the image to the fine map."""
        raise NotImplementedError

    def coarse_layers(self) -> nn.Sequential:
        """The layers from the fine to the coarse map."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Features:
        fine = self.fine_layers()(x)
        return Features(fine, self.coarse_layers()(fine))


class Conv(nn.Conv2d):
    """Convolution that keeps size at stride 1. At stride 2 pads like PyTorch models or like TensorFlow's SAME.

    SAME pads one row less before than after on even sizes; weights trained with it drift under symmetric padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        stride_padding: StridePadding = "symmetric",
    ) -> None:
        shifted = stride == 2 and kernel > 1 and stride_padding == "same"
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=0 if shifted else (kernel - 1) // 2,
            groups=groups,
            bias=bias,
        )
        self._pad_before, self._pad_after = ((kernel - 2) // 2, (kernel - 1) // 2) if shifted else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """This convolution with another weight and bias of the same shape."""
        if self.groups > 1 and self.stride[0] == 2 and x.requires_grad and x.device.type == "cpu":
            # The gradient of a strided depthwise convolution takes five times as long on a CPU as that of all pixels.
            half = (self.kernel_size[0] - 1) // 2
            first = half - self._pad_before if self._pad_after else 0
            return F.conv2d(x, weight, bias, 1, half, 1, self.groups)[:, :, first::2, first::2]
        if self._pad_after:
            x = F.pad(x, (self._pad_before, self._pad_after) * 2)
        return F.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that can be frozen: statistics and mode fixed, scale and bias still learn."""

    frozen = False

    def train(self, mode: bool = True) -> BatchNorm:
        super().train(mode and not self.frozen)
        return self


def freeze_batch_norms(module: nn.Module) -> None:
    """Fix the statistics of every batch norm in ``module`` from now on."""
    for child in module.modules():
        if isinstance(child, BatchNorm):
            child.frozen = True
            child.eval()


def conv_norm(x: Tensor, conv: Conv, norm: BatchNorm) -> Tensor:
    """Convolution and batch norm. In training they are one convolution where the norm is frozen: large maps are read
    and written once less, forwards and backwards."""
    if not (norm.frozen and conv.training):
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return conv.convolve(x, conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)


class Layers(nn.Sequential):
    """Layers one after the other; each convolution of ours is followed by its batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, Conv):
                conv = layer
            else:
                x = conv_norm(x, conv, layer) if isinstance(layer, BatchNorm) else layer(x)
        return x


class ConvNormAct(Layers):
    """Convolution, batch norm, activation, keyed 0, 1, 2 as in torchvision."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU6,
        eps: float = 1e-5,
        stride_padding: StridePadding = "symmetric",
    ) -> None:
        layers: list[nn.Module] = [
            Conv(in_channels, out_channels, kernel, stride, groups, stride_padding=stride_padding),
            BatchNorm(out_channels, eps=eps),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


# --- ResNet (He et al., CVPR 2016) ---


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

    def __init__(self, depths: tuple[int, int, int, int], stride_padding: StridePadding) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, 2, stride_padding=stride_padding)
        self.bn1 = BatchNorm(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for index, depth in enumerate(depths):
            width = 64 << index
            blocks = []
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, stride_padding))
                channels = width
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))

    def fine_layers(self) -> nn.Sequential:
        return Layers(self.conv1, self.bn1, nn.ReLU(), self.maxpool, self.layer1, self.layer2)

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(self.layer3, self.layer4)


# --- MobileNetV2 (Sandler et al., CVPR 2018) ---


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, expansion: int, stride_padding: StridePadding
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [ConvNormAct(in_channels, hidden, 1)]
        layers += [
            ConvNormAct(hidden, hidden, 3, stride, hidden, stride_padding=stride_padding),
            Conv(hidden, channels, 1),
            BatchNorm(channels),
        ]
        self.conv = Layers(*layers)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Encoder):
    """MobileNetV2 1.0 without classifier."""

    fine_channels = 32
    coarse_channels = 1280

    def __init__(self, stride_padding: StridePadding) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(3, 32, 3, 2, stride_padding=stride_padding)]
        channels = 32
        for expansion, width, depth, first_stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for block in range(depth):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(channels, width, stride, expansion, stride_padding))
                channels = width
        layers.append(ConvNormAct(channels, self.coarse_channels, 1))
        self.features = nn.Sequential(*layers)

    def fine_layers(self) -> nn.Sequential:
        return self.features[:7]

    def coarse_layers(self) -> nn.Sequential:
        return self.features[7:]


# --- MobileNetV3 (Howard et al., ICCV 2019) ---


class SqueezeExcitation(nn.Module):
    """Channel attention from the pooled map."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class InvertedResidualV3(nn.Module):
    """Expansion, depthwise convolution, optional squeeze-excitation, linear projection."""

    def __init__(
        self,
        in_channels: int,
        kernel: int,
        hidden: int,
        channels: int,
        attention: bool,
        hardswish: bool,
        stride: int,
        stride_padding: StridePadding,
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hardswish else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(ConvNormAct(in_channels, hidden, 1, activation=activation, eps=1e-3))
        layers.append(
            ConvNormAct(
                hidden, hidden, kernel, stride, hidden, activation, eps=1e-3, stride_padding=stride_padding
            )
        )
        if attention:
            layers.append(SqueezeExcitation(hidden, _multiple_of_8(hidden // 4)))
        layers.append(ConvNormAct(hidden, channels, 1, activation=None, eps=1e-3))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


def _multiple_of_8(value: int) -> int:
    rounded = max(8, (value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


# kernel, hidden, channels, squeeze-excitation, hardswish, stride: tables 1 and 2 of the paper.
_V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class MobileNetV3(Encoder):
    """MobileNetV3 large or small without classifier."""

    def __init__(
        self, table: tuple[tuple[int, int, int, bool, bool, int], ...], stride_padding: StridePadding
    ) -> None:
        super().__init__()
        channels = 16
        stride_so_far, self._fine_end = 2, 0
        layers: list[nn.Module] = [
            ConvNormAct(3, channels, 3, 2, activation=nn.Hardswish, eps=1e-3, stride_padding=stride_padding)
        ]
        for kernel, hidden, width, attention, hardswish, stride in table:
            layers.append(
                InvertedResidualV3(
                    channels, kernel, hidden, width, attention, hardswish, stride, stride_padding
                )
            )
            channels = width
            stride_so_far *= stride
            if stride_so_far == 8:
                self._fine_end, self.fine_channels = len(layers), channels
        self.coarse_channels = 6 * channels
        layers.append(ConvNormAct(channels, self.coarse_channels, 1, activation=nn.Hardswish, eps=1e-3))
        self.features = nn.Sequential(*layers)

    def fine_layers(self) -> nn.Sequential:
        return self.features[: self._fine_end]

    def coarse_layers(self) -> nn.Sequential:
        return self.features[self._fine_end :]


# --- GoogLeNet (Szegedy et al., CVPR 2015) with batch norms ---


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

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
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


# --- by name ---

ENCODERS: dict[str, Callable[[StridePadding], Encoder]] = {
    "resnet18": lambda padding: ResNet((2, 2, 2, 2), padding),
    "resnet34": lambda padding: ResNet((3, 4, 6, 3), padding),
    "googlenet": GoogLeNet,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": lambda padding: MobileNetV3(_V3_SMALL, padding),
    "mobilenet_v3_large": lambda padding: MobileNetV3(_V3_LARGE, padding),
}


def build_encoder(name: str, stride_padding: StridePadding = "symmetric") -> Encoder:
    """An encoder with random weights.

    Raises:
        ValueError: unknown name.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder: expected one of {', '.join(ENCODERS)}, got {name!r}")
    return ENCODERS[name](stride_padding)


def encoder_of_weights(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the largest encoder these torchvision-named weights fill, None when there is none."""
    best, most = None, 0
    for name in ENCODERS:
        with torch.device("meta"):
            wanted = build_encoder(name).state_dict()
        needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
        fits = needed <= weights.keys() and all(weights[k].shape == wanted[k].shape for k in needed)
        # ResNet-34 has every layer of ResNet-18 under the same name.
        if fits and len(needed) > most:
            best, most = name, len(needed)
    return best


def has_folded_norms(weights: Mapping[str, Tensor]) -> bool:
    """True when every batch norm has mean 0 and variance 1 (less epsilon): folded into the convolutions, as in weights
    converted from TensorFlow Lite. Such weights come from SAME padding, and their norms must stay frozen."""
    means = [v for k, v in weights.items() if k.endswith("running_mean")]
    variances = [v for k, v in weights.items() if k.endswith("running_var")]
    return (
        bool(means)
        and all(not v.any() for v in means)
        and all(bool((v - 1.0).abs().max() < 2e-3) for v in variances)
    )


def load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load torchvision-named weights, ignoring the classifier.

    Raises:
        ValueError: a weight is missing or of another shape; the message names the first.
    """
    wanted = encoder.state_dict()
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in weights:
            raise ValueError(f"weights: {key} is missing")
        if weights[key].shape != value.shape:
            raise ValueError(
                f"weights: {key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
            )
    encoder.load_state_dict({k: weights[k] for k in wanted if k in weights}, strict=False)
