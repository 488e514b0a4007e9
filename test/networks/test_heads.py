"""Necks and pose heads: shapes, gradients, what they see, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx_export import exported

from localizer_ros.networks.heads import NECKS, PoseHead, build_neck


def head(name: str, dropout: float = 0.0) -> PoseHead:
    torch.manual_seed(0)
    return PoseHead(build_neck(name, 24, 6, 64), dropout)


@pytest.mark.parametrize("name", NECKS)
def test_heads_give_a_pose_and_sigmas_and_every_parameter_learns(name: str) -> None:
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
def test_sigmas_send_no_gradient_to_the_features(name: str) -> None:
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
