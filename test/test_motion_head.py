"""The motion head's geometry: exact flow and depth give the exact motion, whatever the camera and the mounting."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from localizer_ros.networks.motion import (
    MotionHead,
    inverse_spd,
    rotation_matrix,
    rotation_vector,
)

H, W = 12, 16


@pytest.fixture
def head() -> MotionHead:
    torch.manual_seed(3)
    head = MotionHead(8, 16)
    K = torch.tensor([[105.0, 0.0, 64.0], [0.0, 103.0, 47.0], [0.0, 0.0, 1.0]])
    R = torch.from_numpy(Rotation.from_rotvec([0.02, -0.03, 0.01]).as_matrix()).float()
    head.set_camera(K, R, torch.tensor([0.02, -0.01, 0.03]))
    return head


def motions(count: int, degrees: float, metres: float) -> Tensor:
    return torch.cat(
        [torch.randn(count, 3) * torch.deg2rad(torch.tensor(degrees)), torch.randn(count, 3) * metres], 1
    )


def test_solver_recovers_the_motion_from_exact_flow(head: MotionHead) -> None:
    rel = motions(20, 3.0, 0.05)
    q = torch.rand(20, H, W) * 0.6 + 0.2
    found, variance, residual = head._solve(head.true_flow(q, rel), torch.ones(20, H, W), q)
    # Damping holds back a thousandth.
    assert torch.allclose(found[:, :3], rel[:, :3], atol=4e-4)
    assert torch.allclose(found[:, 3:], rel[:, 3:], atol=2e-3)
    assert residual.max() < 2e-2 and variance.min() > 0


def test_solver_puts_up_with_wrong_cells(head: MotionHead) -> None:
    rel = motions(20, 2.0, 0.03)
    q = torch.rand(20, H, W) * 0.6 + 0.2
    flow = head.true_flow(q, rel)
    wrong = torch.rand(20, 1, H, W) < 0.15
    flow = torch.where(wrong, flow + 2.0 * torch.randn_like(flow), flow)
    found, _, _ = head._solve(flow, torch.ones(20, H, W), q)
    assert (found - rel)[:, :3].norm(dim=1).median() < 2e-3
    assert (found - rel)[:, 3:].norm(dim=1).median() < 1e-2


def test_variances_cover_the_errors_of_noisy_flow(head: MotionHead) -> None:
    rel = motions(200, 2.0, 0.03)
    q = torch.rand(200, H, W) * 0.6 + 0.2
    flow = head.true_flow(q, rel) + 0.05 * torch.randn(200, 2, H, W)
    found, variance, _ = head._solve(flow, torch.ones(200, H, W), q)
    ratio = ((found - rel).square() / variance).mean(0).sqrt()
    # Robust weights make the noise look a little smaller than it is.
    assert ratio.min() > 0.7 and ratio.max() < 2.0


def test_no_motion_where_nothing_is_known(head: MotionHead) -> None:
    state = head.features(torch.randn(2, 8, H, W))
    out = head(torch.zeros_like(state), state, torch.full((2, H, W), 0.5))
    assert torch.isfinite(out.rel_B6).all() and torch.isfinite(out.log_sigma_B6).all()


def test_flow_follows_a_shift_of_the_features(head: MotionHead) -> None:
    head.log_sharpness.data.fill_(5.0)
    head.read[-1].weight.data.zero_()  # the geometry alone, without the untrained correction
    cur = torch.nn.functional.normalize(torch.randn(1, MotionHead.channels, H, W), dim=1)
    prev = torch.roll(cur, (2, -1), (2, 3))
    flow, _ = head._flow(prev, cur)
    inside = flow[0, :, 3:-3, 3:-3]
    assert torch.allclose(inside[0], torch.tensor(-1.0), atol=1e-2)
    assert torch.allclose(inside[1], torch.tensor(2.0), atol=1e-2)


def test_gradients_reach_every_parameter(head: MotionHead) -> None:
    fine_prev, fine_cur = torch.randn(2, 2, 8, H, W).unbind(0)
    q = head.inverse_depth(fine_cur, torch.randn(2, 16, 3, 4))
    rel, log_sigma, flow = head(head.features(fine_prev), head.features(fine_cur), q)
    (rel.square().sum() + log_sigma.square().sum() + flow.square().sum()).backward()
    missing = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def test_inverse_of_positive_definite_matrices() -> None:
    torch.manual_seed(0)
    half = torch.randn(10, 6, 9, dtype=torch.float64)
    A = half @ half.transpose(1, 2)
    assert torch.allclose(inverse_spd(A) @ A, torch.eye(6, dtype=torch.float64).expand(10, 6, 6), atol=1e-8)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-5, 0.1, 2.0, 3.0])
def test_rotation_vectors_there_and_back(size: float) -> None:
    torch.manual_seed(1)
    w = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1) * size
    R = rotation_matrix(w)
    assert torch.allclose(R, torch.from_numpy(Rotation.from_rotvec(w.numpy()).as_matrix()), atol=1e-9)
    assert torch.allclose(rotation_vector(R), w, atol=1e-7)
