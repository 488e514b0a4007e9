"""Losses of one pose, by reprojection, and of sequences: least at the truth, with gradients that lead there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localizer_ros.networks.losses import (
    BalancedLoss,
    LsgLoss,
    MapNetLoss,
    log_quaternion_distance,
    quaternion_distance,
    reprojection_loss,
    sigma_loss,
)
from localizer_ros.networks.poses import (
    Pose,
    compose,
    motion_of_pose,
    pose_of_motion,
    pose_residual,
    quaternion_exp,
    quaternion_product,
    relative,
    rotate,
)


def drive(frames: int, batch: int = 2) -> Pose:
    """Smooth tracks of unit quaternions, (B, T, ...)."""
    torch.manual_seed(0)
    start = Pose(torch.randn(batch, 3), F.normalize(torch.randn(batch, 4), dim=1))
    poses = [start]
    for _ in range(frames - 1):
        poses.append(compose(poses[-1], pose_of_motion(0.1 * torch.randn(batch, 6))))
    return Pose(torch.stack([p.t for p in poses], 1), torch.stack([p.q for p in poses], 1))


def motions_of(true: Pose) -> Tensor:
    """(B, T, 6), the first frame's without meaning."""
    before, after = Pose(true.t[:, :-1], true.q[:, :-1]), Pose(true.t[:, 1:], true.q[:, 1:])
    return torch.cat(
        [torch.full_like(true.t[:, :1], 9.0).repeat(1, 1, 2), motion_of_pose(relative(before, after))], 1
    )


def test_quaternion_distance_is_the_same_for_both_signs() -> None:
    q = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert quaternion_distance(-q, q, 1).item() == pytest.approx(0.0, abs=1e-7)


def test_sigma_learns_the_size_of_the_residuals_and_an_outlier_moves_it_little() -> None:
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(400, 6, generator=generator) * torch.tensor([0.01, 0.02, 0.05, 0.1, 0.5, 1.0])
    residual[0] = 1e6
    log_sigma = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([log_sigma], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        sigma_loss(residual, log_sigma.expand(400, 6)).backward()
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


def test_log_quaternion_distance_is_the_difference_of_half_rotation_vectors() -> None:
    a, b = torch.tensor([[0.1, 0.2, -0.3]]), torch.tensor([[0.15, 0.0, -0.2]])
    expected = 0.5 * (a - b).abs().sum().item()
    for sign in (1.0, -2.0):
        distance = log_quaternion_distance(sign * quaternion_exp(a), -quaternion_exp(b))
        assert distance.item() == pytest.approx(expected, abs=1e-6)


def test_log_quaternion_distance_does_not_jump_half_a_turn_from_the_maps_axes() -> None:
    axis = F.normalize(torch.tensor([[1.0, 2.0, -1.0]]), dim=1)
    before, after = quaternion_exp((torch.pi - 0.01) * axis), quaternion_exp((torch.pi + 0.01) * axis)
    for q, q_true in ((before, after), (after, before)):
        assert log_quaternion_distance(q, q_true).item() < 0.03


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_quaternion_distance_pulls_towards_the_truth(sign: float) -> None:
    torch.manual_seed(0)
    q_true = F.normalize(torch.randn(8, 4), dim=1)
    q = (sign * q_true + 0.3 * torch.randn(8, 4)).requires_grad_()
    before = log_quaternion_distance(q, q_true)
    before.backward()
    assert log_quaternion_distance(q - 0.1 * q.grad, q_true) < before
    at_truth = q_true.clone().requires_grad_()
    loss = log_quaternion_distance(at_truth, q_true)
    loss.backward()
    assert loss.item() < 1e-6 and torch.isfinite(at_truth.grad).all()


def view() -> tuple[Pose, Tensor, Tensor]:
    """Two true poses, points before them, and that all are seen."""
    torch.manual_seed(0)
    true = Pose(torch.randn(2, 3), F.normalize(torch.randn(2, 4), dim=1))
    local = torch.rand(2, 30, 3) * torch.tensor([2.0, 2.0, 3.0]) + torch.tensor([-1.0, -1.0, 2.0])
    return true, true.t[:, None] + rotate(true.q[:, None], local), torch.ones(2, 30, dtype=torch.bool)


def test_reprojection_is_zero_at_the_truth_and_grows_with_the_error() -> None:
    true, points, seen = view()
    assert reprojection_loss(Pose(true.t, 2.0 * true.q), true, points, seen, (200.0, 210.0), 100.0) < 1e-3
    last = 0.0
    for metres in (0.01, 0.05, 0.2):
        moved = Pose(true.t + metres, true.q)
        loss = reprojection_loss(moved, true, points, seen, (200.0, 210.0), 100.0).item()
        assert loss > last
        last = loss


def test_reprojection_of_a_small_turn_is_focal_length_times_angle() -> None:
    true = Pose(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    points, seen = torch.tensor([[[0.0, 0.0, 4.0], [0.0, 0.0, 50.0]]]), torch.tensor([[True, False]])
    turned = Pose(true.t, quaternion_exp(torch.tensor([[0.0, 0.01, 0.0]])))
    assert reprojection_loss(turned, true, points, seen, (200.0, 210.0), 100.0).item() == pytest.approx(
        2.0, rel=1e-3
    )


def test_reprojection_counts_points_behind_as_the_clamp_and_none_as_zero() -> None:
    true, points, seen = view()
    behind = Pose(true.t, quaternion_product(true.q, quaternion_exp(torch.tensor([[0.0, torch.pi, 0.0]]))))
    assert reprojection_loss(behind, true, points, seen, (200.0, 210.0), 50.0).item() == pytest.approx(50.0)
    assert reprojection_loss(behind, true, points, ~seen, (200.0, 210.0), 50.0).item() == 0.0


def test_reprojection_refines_a_pose_that_is_nearly_right() -> None:
    true, points, seen = view()
    t = (true.t + 0.05).requires_grad_()
    q = quaternion_product(true.q, quaternion_exp(torch.tensor([[0.02, -0.03, 0.01]]))).requires_grad_()
    optimizer = torch.optim.Adam([t, q], lr=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        reprojection_loss(Pose(t, q), true, points, seen, (200.0, 210.0), 100.0).backward()
        optimizer.step()
    residual = pose_residual(t.detach(), q.detach(), *true)
    assert residual.abs().max() < 0.01


def test_mapnet_loss_is_least_at_the_truth_for_pairs_and_triples() -> None:
    loss = MapNetLoss()
    for frames in (2, 3):
        true = drive(frames)
        # At the truth only the balances are left: s_x + s_q of the absolute and of the relative term.
        least = loss(Pose(true.t, -3.0 * true.q), true)
        assert least.item() == pytest.approx(2 * (0.0 - 3.0), abs=1e-3)
        assert loss(Pose(true.t + 0.1, true.q), true) > least + 0.1


def test_mapnet_punishes_a_jump_between_frames_more_than_a_common_offset() -> None:
    true, loss = drive(2), MapNetLoss()
    offset = torch.tensor([0.1, 0.1, 0.1])
    common = loss(Pose(true.t + offset, true.q), true)
    jump = loss(Pose(true.t + torch.stack([offset, -offset]), true.q), true)
    assert jump > common + 0.3


def test_relative_terms_do_not_change_with_the_map() -> None:
    true = drive(3)
    pose = Pose(true.t + 0.1 * torch.randn(2, 3, 3), F.normalize(true.q + 0.1 * torch.randn(2, 3, 4), dim=-1))
    T_new_map = Pose(torch.tensor([[[7.0, -3.0, 2.0]]]), F.normalize(torch.randn(1, 1, 4), dim=-1))
    motion = motions_of(true) + 0.05 * torch.randn(2, 3, 6)
    here = LsgLoss()(pose, motion, true)
    there = LsgLoss()(compose(T_new_map, pose), motion, compose(T_new_map, true))
    torch.testing.assert_close(here.motion, there.motion, atol=1e-4, rtol=1e-4)


def test_lsg_losses_are_least_at_the_truth_and_do_not_look_at_the_first_motion() -> None:
    true, loss = drive(4), LsgLoss()
    motion = motions_of(true)
    least = loss(Pose(true.t, -2.0 * true.q), motion, true)
    for term in least:
        assert term.item() == pytest.approx(-3.0, abs=1e-3)
    wrong_first = motion.clone()
    wrong_first[:, 0] += 1.0
    for a, b in zip(loss(true, motion, true), loss(true, wrong_first, true), strict=True):
        assert torch.equal(a, b)
    wrong = loss(true, motion + 0.05, true)
    assert wrong.absolute == least.absolute or abs(wrong.absolute - least.absolute) < 1e-4
    assert wrong.motion > least.motion + 0.1 and wrong.joint > least.joint + 0.1


def test_the_joint_loss_composes_and_does_not_add() -> None:
    # Half a turn, then one metre ahead: ahead is backwards on the map.
    q_turned = quaternion_exp(torch.tensor([0.0, torch.pi * 0.999, 0.0]))
    motion = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    before = Pose(torch.tensor([2.0, 0.0, 0.0]), q_turned)
    after = compose(before, pose_of_motion(motion))
    assert after.t[2].item() == pytest.approx(-1.0, abs=1e-3)
    true = Pose(torch.stack([before.t, after.t])[None], torch.stack([before.q, after.q])[None])
    losses = LsgLoss()(true, torch.stack([motion, motion])[None], true)
    assert losses.joint.item() == pytest.approx(-3.0, abs=1e-2)


def test_gradients_reach_all_of_a_sequence_and_every_balance() -> None:
    true, loss = drive(3), LsgLoss()
    t, q = (true.t + 0.1).requires_grad_(), (true.q + 0.1).requires_grad_()
    motion = (motions_of(true) + 0.1).requires_grad_()
    sum(loss(Pose(t, q), motion, true)).backward()
    assert all((v.grad.flatten(2).abs().sum(2) > 0).all() for v in (t, q))
    assert (motion.grad[:, 1:].abs() > 0).any(2).all() and not motion.grad[:, 0].any()
    assert all(p.grad is not None and p.grad != 0 for p in loss.parameters())
