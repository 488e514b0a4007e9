"""Rigid transforms in torch against SE3, losses, and means of poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.heads import PoseHead, build_neck
from localizer_ros.networks.losses import (
    BalancedLoss,
    LsgLoss,
    MapNetLoss,
    log_quaternion_distance,
    quaternion_distance,
    reprojection_loss,
    sigma_loss,
)
from localizer_ros.networks.monte_carlo import dropout_on, mean_pose, monte_carlo_pose
from localizer_ros.networks.poses import (
    Pose,
    compose,
    motion_of_pose,
    pose_of_motion,
    pose_residual,
    quaternion_exp,
    quaternion_log,
    quaternion_product,
    relative,
    rotate,
    rotation_vector,
    same_side,
)


def random_pose(rng: np.random.Generator) -> SE3:
    return SE3(Rotation.random(random_state=rng).as_matrix(), rng.normal(0.0, 3.0, 3))


def to_torch(*poses: SE3) -> Pose:
    t, q = (np.stack(values) for values in ([T.t for T in poses], [T.quaternion_xyzw() for T in poses]))
    return Pose(torch.from_numpy(t), torch.from_numpy(q))


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


# --- rigid transforms ---


def test_transforms_are_those_of_se3(rng: np.random.Generator) -> None:
    for _ in range(20):
        T_a_b, T_b_c = random_pose(rng), random_pose(rng)
        T_a_c = compose(to_torch(T_a_b), to_torch(T_b_c))
        np.testing.assert_allclose(T_a_c.t[0], (T_a_b @ T_b_c).t, atol=1e-12)
        np.testing.assert_allclose(Rotation.from_quat(T_a_c.q).as_matrix()[0], (T_a_b @ T_b_c).R, atol=1e-12)
        again = relative(to_torch(T_a_b), T_a_c)
        np.testing.assert_allclose(again.t[0], T_b_c.t, atol=1e-12)
        np.testing.assert_allclose(same_side(again.q, to_torch(T_b_c).q), to_torch(T_b_c).q, atol=1e-12)
        v = rng.normal(size=3)
        np.testing.assert_allclose(rotate(to_torch(T_a_b).q[0], torch.from_numpy(v)), T_a_b.R @ v, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.1])
def test_exponential_and_logarithm_undo_each_other_and_have_gradients(angle: float) -> None:
    axis = F.normalize(torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64), dim=1)
    w = (angle * axis).requires_grad_()
    q = quaternion_exp(w)
    np.testing.assert_allclose(q.detach(), Rotation.from_rotvec(w.detach().numpy()).as_quat(), atol=1e-12)
    for sign in (1.0, -1.0):
        found = rotation_vector(sign * q)
        torch.testing.assert_close(found, w, atol=1e-9, rtol=1e-9)
        (gradient,) = torch.autograd.grad(found.sum(), w, retain_graph=True)
        torch.testing.assert_close(gradient, torch.ones_like(gradient), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(2.0 * quaternion_log(q), w, atol=1e-9, rtol=1e-9)


def test_motions_are_rotation_first(rng: np.random.Generator) -> None:
    motion = torch.tensor([[0.1, -0.2, 0.3, 1.0, 2.0, 3.0]])
    T = pose_of_motion(motion)
    np.testing.assert_allclose(Rotation.from_quat(T.q).as_rotvec()[0], motion[0, :3], atol=1e-6)
    torch.testing.assert_close(motion_of_pose(T), motion)


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


# --- one pose ---


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


# --- reprojection ---


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


# --- sequences ---


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


# --- means ---


def test_the_mean_of_poses_is_where_residuals_cancel(rng: np.random.Generator) -> None:
    T = random_pose(rng)
    noise = rng.normal(0.0, 1.0, (400, 6)) * [0.05, 0.1, 0.2, 0.3, 0.1, 0.5]
    poses = [T @ SE3(Rotation.from_rotvec(xi[:3]).as_matrix(), xi[3:]) for xi in noise]
    t, q = to_torch(*poses)
    q = q * torch.from_numpy(rng.choice([-2.0, 0.5, 1.0], (400, 1)))  # length and sign say nothing
    mean = mean_pose(t[:, None], q[:, None])
    residual = pose_residual(mean.t_B3, mean.q_B4, t, F.normalize(q, dim=1))
    assert residual.mean(0).abs().max() < 1e-9
    np.testing.assert_allclose(mean.covariance_B66[0].diagonal(), np.var(noise, axis=0), rtol=0.15)
    np.testing.assert_allclose(mean.covariance_B66[0], np.cov(residual.T), atol=1e-9)


def test_the_mean_moves_with_the_map(rng: np.random.Generator) -> None:
    base, T_new_map = random_pose(rng), random_pose(rng)
    poses = [base @ SE3.exp(rng.normal(0, 0.3, 6)) for _ in range(9)]
    here = mean_pose(*(v[:, None] for v in to_torch(*poses)))
    there = mean_pose(*(v[:, None] for v in to_torch(*(T_new_map @ T for T in poses))))
    expected = compose(to_torch(T_new_map), Pose(here.t_B3, here.q_B4))
    torch.testing.assert_close(there.t_B3, expected.t)
    torch.testing.assert_close(same_side(there.q_B4, expected.q), expected.q)
    torch.testing.assert_close(there.covariance_B66, here.covariance_B66)


def test_monte_carlo_dropout_spreads_with_dropout_only_and_leaves_the_mode_alone() -> None:
    torch.manual_seed(0)
    coarse = torch.rand(2, 24, 2, 3)
    spreads = []
    for dropout in (0.0, 0.5):
        head = PoseHead(build_neck("pooled", 24, 6, 64), dropout).eval()
        mean = monte_carlo_pose(head, coarse, 40)
        assert not any(module.training for module in head.modules())
        assert mean.covariance_B66.shape == (2, 6, 6)
        spreads.append(mean.covariance_B66.diagonal(dim1=1, dim2=2).sum(1))
        # The mean is near the answer without dropout.
        assert (mean.t_B3 - head(coarse)[0]).norm(dim=1).max() < 0.05
    assert spreads[0].max() < 1e-8 < spreads[1].min()


def test_dropout_on_leaves_batch_norms_frozen() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    with dropout_on(network):
        assert network[1].training and not network[0].training
    assert not network[1].training
