"""Encoders, heads, and networks from their specs: shapes, padding, loading, gradients, export, streams that equal the
batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from localizer_ros.networks.backbones import (
    ENCODERS,
    Conv,
    StridePadding,
    build_encoder,
    encoder_of_weights,
    freeze_batch_norms,
    has_folded_norms,
    load_encoder,
)
from onnx_export import exported
from safetensors.torch import load_file
from torch.nn import functional as F

from localizer_ros.networks.build import FAMILIES, build_network
from localizer_ros.networks.heads import NECKS, PoseHead, build_neck
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.motion_step import MotionStep

# Parameters without classifier, as published for torchvision's models less their last layers.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "googlenet": 5_599_904,
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 927_008,
    "mobilenet_v3_large": 2_971_952,
}

# A small network of every family.
SPEC = {
    "encoder": "mobilenet_v3_small",
    "stride_padding": "symmetric",
    "height_px": 64,
    "width_px": 96,
    "head": "spatial",
    "hidden": 32,
    "dropout": 0.5,
    "anchors": 5,
    "orientation": "relative",
    "answer": "mean",
    "channels": 16,
    "memory": 3,
    "motion_hidden": 24,
    "aligned": True,
    "coordinate_width": 16,
}


# --- encoders ---


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_size_and_strides_they_should(name: str) -> None:
    encoder = build_encoder(name).eval()
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]
    for padding in ("symmetric", "same"):
        features = build_encoder(name, padding).eval()(torch.zeros(1, 3, 64, 96))
        assert features.fine.shape == (1, encoder.fine_channels, 8, 12)
        assert features.coarse.shape == (1, encoder.coarse_channels, 2, 3)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_find_their_encoder_and_a_missing_key_is_named(name: str) -> None:
    weights = build_encoder(name).state_dict()
    assert encoder_of_weights({**weights, "classifier.1.weight": torch.zeros(1)}) == name
    key = next(k for k in weights if k.endswith("weight"))
    broken = {k: v for k, v in weights.items() if k != key}
    assert encoder_of_weights(broken) is None
    with pytest.raises(ValueError, match=key):
        load_encoder(build_encoder(name), broken)


def test_googlenet_has_the_keys_and_the_input_of_its_published_weights() -> None:
    encoder = build_encoder("googlenet")
    keys = set(encoder.state_dict())
    assert {"conv1.conv.weight", "conv3.bn.running_var", "inception4e.branch4.1.conv.weight"} <= keys
    # torchvision's model without auxiliary classifiers has these and fc.weight, fc.bias.
    assert len(keys) == 342
    assert encoder.inception3a.branch3[1].conv.weight.shape == (32, 16, 3, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    raw = torch.rand(2, 3, 4, 4)
    normalized = (raw - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(encoder.scale(normalized), 2.0 * raw - 1.0)


def test_same_padding_pads_after_as_tensorflow_does() -> None:
    torch.manual_seed(0)
    conv = Conv(2, 3, 3, stride=2, stride_padding="same")
    x = torch.randn(1, 2, 8, 10)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected)


def test_imagenet_weights_load_with_folded_norms(shared_dir: Path) -> None:
    weights = load_file(shared_dir / "weights" / "mobilenet_v2_imagenet.safetensors")
    assert encoder_of_weights(weights) == "mobilenet_v2"
    assert has_folded_norms(weights)
    assert not has_folded_norms({**weights, "features.0.1.running_mean": torch.ones(32)})


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
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
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


def test_a_stream_of_steps_equals_the_batch() -> None:
    torch.manual_seed(1)
    step = MotionStep(MotionHead(8, 16), (64, 96)).eval()
    # One texture that drifts by a pixel a frame.
    wall = F.interpolate(torch.randn(1, 3, 16, 26), (64, 104), mode="bicubic")
    images = torch.cat([wall[..., k : k + 96] for k in range(4)])
    inverse_depth = torch.full((4, 8, 12), 0.5)
    with torch.no_grad():
        texture = step.motion.features(images)
        rel = step.motion(
            torch.cat([torch.zeros_like(texture[:1]), texture[:-1]]), texture, inverse_depth
        ).rel_B6
        state = torch.zeros(1, *step.state_shapes[0])
        for index in range(4):
            output = step(images[index : index + 1], inverse_depth[index : index + 1], state)
            state = output.texture_B1hw
            if index > 0:
                torch.testing.assert_close(output.rel_B6[0], rel[index], atol=1e-4, rtol=1e-3)


# --- heads ---


def head(name: str, dropout: float = 0.0) -> PoseHead:
    torch.manual_seed(0)
    return PoseHead(build_neck(name, 24, 6, 64), dropout)


@pytest.mark.parametrize("name", NECKS)
def test_heads_give_a_pose_and_a_spread_and_every_parameter_learns(name: str) -> None:
    network = head(name)
    network.centre.copy_(torch.tensor([1.0, 2.0, 3.0]))
    t, q, log_sigma = network(torch.rand(5, 24, 2, 3))
    assert t.shape == (5, 3) and q.shape == (5, 4) and log_sigma.shape == (5, 6)
    # Before training every answer is near the scene's centre.
    assert (t - network.centre).norm(dim=1).max() < 0.2
    (t.square().sum() + q.square().sum() + log_sigma.square().sum()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NECKS)
def test_the_spread_does_not_shape_the_features(name: str) -> None:
    network = head(name)
    network(torch.rand(2, 24, 2, 3))[2].sum().backward()
    assert all(p.grad is None for p in network.neck.parameters())


def test_only_the_spatial_head_sees_where_things_are() -> None:
    torch.manual_seed(0)
    coarse = torch.rand(2, 24, 2, 3)
    mirrored = coarse.flip(3)
    for name in NECKS:
        a, b = (head(name).eval()(x)[1] for x in (coarse, mirrored))
        assert torch.allclose(a, b, atol=1e-5) == (name != "spatial"), name


def test_the_lstm_head_reads_its_feature_in_four_directions() -> None:
    neck = build_neck("lstm", 24, 6, 64).eval()
    coarse = torch.rand(1, 24, 2, 3, requires_grad=True)
    directions = neck(coarse).unflatten(1, (4, -1))
    assert directions.shape == (1, 4, neck.memory)
    # Each last state depends on all of the feature, also on its far end.
    for direction in directions[0]:
        (gradient,) = torch.autograd.grad(direction.sum(), coarse, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert (directions[0, 0] - directions[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NECKS)
def test_heads_export_to_onnx(name: str, tmp_path: Path) -> None:
    network, coarse = head(name, 0.5).eval(), torch.rand(1, 24, 2, 3)
    answers = exported(network, (coarse,), tmp_path)(coarse)
    for answer, expected in zip(answers, network(coarse), strict=True):
        torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)


def test_unknown_heads_and_widths_are_named() -> None:
    with pytest.raises(ValueError, match="head: expected one of spatial"):
        build_neck("none", 24, 6, 64)
    with pytest.raises(ValueError, match="multiple of 32"):
        build_neck("lstm", 24, 6, 40)
    with pytest.raises(ValueError, match="multiple of 8"):
        build_neck("atloc", 24, 6, 36)


# --- networks from specs ---


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_rebuilds_its_network_exactly(family: str) -> None:
    spec = {**SPEC, "family": family}
    torch.manual_seed(0)
    network, again = build_network(spec).eval(), build_network(spec).eval()
    again.load_state_dict(network.state_dict())
    inputs = [torch.randn(2, 3, 64, 96)]
    if family == "lsg":
        inputs += [torch.randn_like(state) for state in network.start(2)]
    elif family == "motion":
        inputs += [torch.rand(2, 8, 12) + 0.1, torch.randn(2, *network.state_shapes[0])]
    with torch.no_grad():
        for a, b in zip(network(*inputs), again(*inputs), strict=True):
            assert torch.equal(a, b) and torch.isfinite(a).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_spec_lacks_is_named(family: str) -> None:
    with pytest.raises(ValueError, match="'stride_padding' is missing"):
        build_network({"family": family, **{k: v for k, v in SPEC.items() if k != "stride_padding"}})
    with pytest.raises(ValueError, match="expected family posenet"):
        build_network({"family": "none"})
