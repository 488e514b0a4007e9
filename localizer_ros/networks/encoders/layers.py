"""What all encoders are made of, and what they give: convolutions, batch norms that can be frozen, two feature maps.

Every encoder maps (B, 3, H, W) to two maps: fine at stride 8, where motion between frames is still visible, and coarse
at stride 32. Batch norms are either frozen (running statistics and fixed mode, right for pretrained weights and small
batches, and the only choice for weights with folded norms) or trained (right when starting from nothing).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

StridePadding = Literal["symmetric", "same"]

# RGB mean and standard deviation of the images, 0..1, that all encoders are given: those of torchvision's weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        normalized: Tensor = norm(conv(x))
        return normalized
    assert norm.running_mean is not None and norm.running_var is not None
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
    """Convolution, batch norm, activation, keyed 0, 1, 2 as in torchvision.

    Args:
        conv: without bias.
        activation: makes it; None for a linear layer.
        eps: of the batch norm.
    """

    def __init__(
        self, conv: Conv, activation: Callable[[], nn.Module] | None = nn.ReLU6, eps: float = 1e-5
    ) -> None:
        layers: list[nn.Module] = [conv, BatchNorm(conv.out_channels, eps=eps)]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)
