"""Padding, frozen norms, and short cuts of training that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from localizer_ros.networks.encoders.build import (
    build_encoder,
)
from localizer_ros.networks.encoders.layers import Conv, StridePadding, freeze_batch_norms


def test_same_padding_pads_after_as_tensorflow_does() -> None:
    torch.manual_seed(0)
    conv = Conv(2, 3, 3, stride=2, stride_padding="same")
    x = torch.randn(1, 2, 8, 10)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected)


def test_frozen_norms_stay_frozen_while_training() -> None:
    encoder = build_encoder("mobilenet_v3_small")
    freeze_batch_norms(encoder)
    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(torch.randn(2, 3, 64, 64))
    for key, value in before.items():
        torch.testing.assert_close(encoder.state_dict()[key], value)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "googlenet"])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_short_cuts_of_training_change_neither_features_nor_gradients(
    name: str, padding: StridePadding
) -> None:
    """Frozen norms folded into convolutions and strided depthwise convolutions, against the layers one by one."""
    torch.manual_seed(3)
    encoder = build_encoder(name, padding).double()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    freeze_batch_norms(encoder)
    image = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    found = {}
    for mode in (True, False):
        encoder.train(mode)
        encoder.zero_grad()
        sum(x.square().mean() for x in encoder(image)).backward()
        with torch.set_grad_enabled(mode):
            found[mode] = [*encoder(image), *(p.grad.clone() for p in encoder.parameters())]
    assert not any(m.training for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for fast, plain in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_strided_depthwise_convolution_has_the_gradient_of_what_it_computes(
    kernel: int, padding: StridePadding
) -> None:
    torch.manual_seed(4)
    conv = Conv(4, 4, kernel, 2, groups=4, stride_padding=padding).double()
    x = torch.randn(2, 4, 8, 12, dtype=torch.float64)
    plain = conv(x)
    torch.testing.assert_close(conv(x.requires_grad_()), plain)
    assert torch.autograd.gradcheck(conv, x)
