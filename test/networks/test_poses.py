"""Rigid transforms in torch against SE3."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from localizer_ros.core.se3 import SE3
from localizer_ros.networks.poses import (
    Pose,
    compose,
    motion_of_pose,
    pose_of_motion,
    pose_residual,
    quaternion_exp,
    quaternion_log,
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
