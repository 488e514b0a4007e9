"""Means of poses, and dropout that stays on."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional as F

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.heads import PoseHead, build_neck
from localizer_ros.networks.monte_carlo import dropout_on, mean_pose, monte_carlo_pose
from localizer_ros.networks.poses import (
    Pose,
    compose,
    pose_residual,
    same_side,
)


def random_pose(rng: np.random.Generator) -> SE3:
    return SE3(Rotation.random(random_state=rng).as_matrix(), rng.normal(0.0, 3.0, 3))


def to_torch(*poses: SE3) -> Pose:
    t, q = (np.stack(values) for values in ([T.t for T in poses], [T.quaternion_xyzw() for T in poses]))
    return Pose(torch.from_numpy(t), torch.from_numpy(q))


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
