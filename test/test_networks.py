"""Encoders, PoseNet and its losses: shapes, padding, loading, and that a step of the stream equals the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.backbones import (
    ENCODERS,
    Conv,
    build_encoder,
    encoder_of_weights,
    freeze_batch_norms,
    has_folded_norms,
    load_encoder,
)
from localizer_ros.networks.posenet import (
    BalancedLoss,
    PoseNet,
    pose_residual,
    quaternion_distance,
    spread_loss,
)

# Parameters without classifier, as published for torchvision's models less their last layers.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 927_008,
    "mobilenet_v3_large": 2_971_952,
}


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


def test_a_stream_of_steps_equals_the_batch() -> None:
    torch.manual_seed(1)
    network = PoseNet(build_encoder("mobilenet_v3_small"), (64, 96), 32, 0.5).eval()
    images = torch.randn(4, 3, 64, 96)
    with torch.no_grad():
        features = network.encoder(images)
        matching = network.motion.features(features.fine)
        inverse_depth = network.motion.inverse_depth(*features)
        rel, _, _ = network.motion(
            torch.cat([torch.zeros_like(matching[:1]), matching[:-1]]), matching, inverse_depth
        )
        state = torch.zeros(1, *network.state_shape)
        for index in range(4):
            output = network(images[index : index + 1], state)
            state = output.matching_BFhw
            torch.testing.assert_close(output.rel_B6[0], rel[index], atol=1e-4, rtol=1e-3)


def test_pose_residual_is_the_tangent_residual(rng: np.random.Generator) -> None:
    for _ in range(20):
        T, xi = SE3.exp(rng.normal(0, 1, 6)), rng.normal(0, 0.05, 6)
        xi[3:] = rng.normal(0, 1, 3)
        T_true = SE3(T.R @ SE3.exp([*xi[:3], 0, 0, 0]).R, T.t + T.R @ xi[3:])
        residual = pose_residual(
            *(
                torch.tensor(v[None], dtype=torch.float64)
                for v in (T.t, -3.0 * T.quaternion_xyzw(), T_true.t, T_true.quaternion_xyzw())
            )
        )
        np.testing.assert_allclose(residual[0].numpy(), xi, atol=1e-9)


def test_quaternion_distance_does_not_mind_the_sign() -> None:
    q = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert quaternion_distance(-q, q, 1).item() == pytest.approx(0.0, abs=1e-7)


def test_spread_learns_the_size_of_the_residuals_and_an_outlier_moves_it_little() -> None:
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(400, 6, generator=generator) * torch.tensor([0.01, 0.02, 0.05, 0.1, 0.5, 1.0])
    residual[0] = 1e6
    log_sigma = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([log_sigma], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        spread_loss(residual, log_sigma.expand(400, 6)).backward()
        assert log_sigma.grad.norm() < 1.1
        optimizer.step()
    # The median of |x| of a Gaussian is 0.674 sigma.
    torch.testing.assert_close(
        log_sigma.exp().detach() / 0.674, torch.tensor([0.01, 0.02, 0.05, 0.1, 0.5, 1.0]), rtol=0.15, atol=0.0
    )


def test_learned_balance_settles_where_the_losses_are_weighed_by_their_size() -> None:
    loss = BalancedLoss()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        loss(torch.tensor(2.0), torch.tensor(0.05)).backward()
        optimizer.step()
    # The minimum over s of L e^-s + s is s = ln L.
    assert loss.s_x.item() == pytest.approx(np.log(2.0), abs=1e-3)
    assert loss.s_q.item() == pytest.approx(np.log(0.05), abs=1e-3)
