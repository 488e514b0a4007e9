"""Monte-Carlo dropout: how a head's answers scatter when it forgets at random (Kendall and Cipolla, ICRA 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.poses import (
    conjugate,
    pose_residual,
    quaternion_exp,
    quaternion_product,
    rotation_vector,
    same_side,
)


class MeanPose(NamedTuple):
    """Mean of poses ``T_map_cam``: position, unit quaternion, and the covariance of [rotation (rad), translation (m)]
    in the mean's body frame."""

    t_B3: Tensor
    q_B4: Tensor
    covariance_B66: Tensor


def mean_pose(t_KB3: Tensor, q_KB4: Tensor, iterations: int = 10) -> MeanPose:
    """Mean and covariance of K >= 2 poses each: the mean of the positions, and the rotation from which the rotation
    vectors to all others add up to zero (Karcher mean). Quaternions of any positive length and either sign."""
    q = F.normalize(q_KB4, dim=-1)
    q = same_side(q, q[:1])
    t_mean, q_mean = t_KB3.mean(0), F.normalize(q.mean(0), dim=-1)
    for _ in range(iterations):
        step = rotation_vector(quaternion_product(conjugate(q_mean), q)).mean(0)
        q_mean = F.normalize(quaternion_product(q_mean, quaternion_exp(step)), dim=-1)
    residual = pose_residual(t_mean, q_mean, t_KB3, q)
    return MeanPose(
        t_mean, q_mean, torch.einsum("kbi,kbj->bij", residual, residual) / (residual.shape[0] - 1)
    )


@contextmanager
def dropout_on(module: nn.Module) -> Iterator[None]:
    """Dropout as in training; everything else stays as it is, batch norms above all."""
    layers = [m for m in module.modules() if isinstance(m, nn.Dropout)]
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.train(mode)


@torch.no_grad()
def monte_carlo_pose(head: nn.Module, coarse_BChw: Tensor, passes: int) -> MeanPose:
    """Mean and covariance of ``passes`` >= 2 answers of a pose head with dropout on; the encoder runs only once."""
    with dropout_on(head):
        t, q, _ = head(coarse_BChw.repeat(passes, 1, 1, 1))
    return mean_pose(t.unflatten(0, (passes, -1)), q.unflatten(0, (passes, -1)))


class MonteCarloHead(nn.Module):
    """A pose head that answers with the mean of several answers with dropout on.

    The same nodes are dropped in every frame: successive answers differ by what is seen, not by chance.

    Args:
        head: the pose head, trained with dropout.
        passes: answers, at least 2.

    Attributes:
        covariance_B66: of the last call's answers, of [rotation (rad), translation (m)].
    """

    def __init__(self, head: nn.Module, passes: int) -> None:
        super().__init__()
        self.head, self.passes = head, passes
        self.covariance_B66: Tensor | None = None

    def forward(self, coarse_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the head; its log standard deviations are those without dropout."""
        with torch.random.fork_rng([coarse_BChw.device] if coarse_BChw.is_cuda else []):
            torch.manual_seed(0)
            mean = monte_carlo_pose(self.head, coarse_BChw, self.passes)
        self.covariance_B66 = mean.covariance_B66
        return mean.t_B3, mean.q_B4, self.head(coarse_BChw)[2]
