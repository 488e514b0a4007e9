"""Anchor points (Saha et al., BMVC 2018): which known place is this, and how far from each of them.

Anchors are every n-th training pose. The head classifies which anchor is relevant and regresses the pose relative to
every one of them. Nobody says which anchor is right: weighing each anchor's error with its probability lets the head
find out which ones it answers best from.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.heads import LOG_SIGMA_LIMITS, Neck, sigma_layers
from localizer_ros.networks.poses import conjugate, quaternion_product, rotate, rotation_vector, same_side

Orientation = Literal["absolute", "relative"]
Answer = Literal["argmax", "mean"]


class AnchorAnswers(NamedTuple):
    """The pose as told by each of N anchors.

    Attributes:
        logits_BN: of their relevance.
        t_BN3: positions in the map, metres: anchor plus offset.
        q_BN4: quaternions (x, y, z, w) in the map, not normalised; all the same when orientation is absolute.
        log_floor_B6: log of the standard deviations that are left when all anchors agree.
    """

    logits_BN: Tensor
    t_BN3: Tensor
    q_BN4: Tensor
    log_floor_B6: Tensor


class AnchorHead(nn.Module):
    """Answers of all anchors, and one pose made of them; a pose head like those of ``heads``.

    Args:
        neck: feature map to vector.
        dropout: before the answers, while training.
        anchors: how many, N.
        orientation: ``absolute`` as in the paper, or ``relative`` to the orientation of each anchor.
        answer: of the most probable anchor, or the ``mean`` weighted by probability.

    Attributes:
        anchors_t_N3, anchors_q_N4: buffers, see :meth:`set_anchors`.
        scale: () buffer, typical size of an offset, metres.
    """

    anchors_t_N3: Tensor
    anchors_q_N4: Tensor
    scale: Tensor

    def __init__(
        self, neck: Neck, dropout: float, anchors: int, orientation: Orientation, answer: Answer
    ) -> None:
        super().__init__()
        if orientation not in ("absolute", "relative"):
            raise ValueError(f"orientation: expected absolute or relative, got {orientation!r}")
        if answer not in ("argmax", "mean"):
            raise ValueError(f"answer: expected argmax or mean, got {answer!r}")
        self.neck = neck
        self.dropout = nn.Dropout(dropout)
        self.relative, self.mean = orientation == "relative", answer == "mean"
        self.relevance = nn.Linear(neck.width, anchors)
        self.offset = nn.Linear(neck.width, 3 * anchors)
        self.orientation = nn.Linear(neck.width, 4 * anchors if self.relative else 4)
        self.floor = sigma_layers(neck.width)
        self.register_buffer("anchors_t_N3", torch.zeros(anchors, 3))
        self.register_buffer("anchors_q_N4", torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(anchors, 1))
        self.register_buffer("scale", torch.ones(()))
        for layer in (self.relevance, self.offset):
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, std=1e-2)

    def set_anchors(self, t_N3: Tensor, q_N4: Tensor) -> None:
        """Set positions and unit quaternions of the anchors, and the scale to the mean distance between them.

        Raises:
            ValueError: not as many as the head has.
        """
        expected = self.anchors_t_N3.shape[0]
        if t_N3.shape != (expected, 3) or q_N4.shape != (expected, 4):
            raise ValueError(f"anchors: expected {expected}, got {t_N3.shape[0]}")
        self.anchors_t_N3.copy_(t_N3)
        self.anchors_q_N4.copy_(q_N4)
        self.scale.fill_(max(1e-3, float(torch.cdist(t_N3, t_N3).mean())))

    def answers(self, coarse_BChw: Tensor) -> AnchorAnswers:
        """What each anchor says."""
        x = self.neck(coarse_BChw)
        # The floor must not shape the features the pose is read from.
        log_floor = self.floor(x.detach()).clamp(*LOG_SIGMA_LIMITS)
        x = self.dropout(x)
        t = self.anchors_t_N3 + self.scale * self.offset(x).unflatten(1, (-1, 3))
        q = self.orientation(x).unflatten(1, (-1, 4))
        if self.relative:
            # A layer that says nothing leaves the anchor's own orientation.
            q = quaternion_product(self.anchors_q_N4, q + q.new_tensor([0.0, 0.0, 0.0, 1.0]))
        return AnchorAnswers(self.relevance(x), t, q.expand(*t.shape[:2], 4), log_floor)

    def forward(self, coarse_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :class:`localizer_ros.networks.heads.PoseHead`; the quaternion is of unit length."""
        return anchor_pose(self.answers(coarse_BChw), self.mean)


def anchor_pose(answers: AnchorAnswers, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One pose and its log standard deviations: scatter of the anchors about it, in its body frame, plus the floor.

    Args:
        answers: of all anchors.
        mean: the mean weighted by probability; otherwise the answer of the most probable anchor.
    """
    probability_BN = torch.softmax(answers.logits_BN, 1)
    best_B1 = answers.logits_BN.argmax(1, keepdim=True)
    q_BN4 = F.normalize(answers.q_BN4, dim=2)
    best_q_B14 = q_BN4.gather(1, best_B1[..., None].expand(-1, -1, 4))
    if mean:
        t = (probability_BN[..., None] * answers.t_BN3).sum(1)
        q = F.normalize((probability_BN[..., None] * same_side(q_BN4, best_q_B14)).sum(1), dim=1)
    else:
        t = answers.t_BN3.gather(1, best_B1[..., None].expand(-1, -1, 3))[:, 0]
        q = best_q_B14[:, 0]
    with torch.no_grad():
        inverse = conjugate(q)[:, None].expand_as(q_BN4)
        deviation_BN6 = torch.cat(
            [
                rotation_vector(quaternion_product(inverse, q_BN4)),
                rotate(inverse, answers.t_BN3 - t[:, None]),
            ],
            2,
        )
        scatter_B6 = (probability_BN[..., None] * deviation_BN6.square()).sum(1)
    return t, q, 0.5 * torch.log(scatter_B6 + torch.exp(2.0 * answers.log_floor_B6))


class AnchorLoss(nn.Module):
    """``alpha Σ_i C_i |δ_i - δ̂_i|² + kappa Σ_i C_i |q - q̂_i|² (+ lambda CE(C, nearest))``, C being probabilities.

    With absolute orientation the second term is the paper's ``kappa |dof - dof̂|²``. With lambda 0 the relevant anchor
    is discovered.

    Args:
        alpha: weight of positions, metres.
        kappa: weight of orientations.
        cross_entropy: lambda.
    """

    def __init__(self, alpha: float, kappa: float, cross_entropy: float) -> None:
        super().__init__()
        self.alpha, self.kappa, self.cross_entropy = alpha, kappa, cross_entropy

    def forward(
        self, answers: AnchorAnswers, anchors_t_N3: Tensor, t_true_B3: Tensor, q_true_B4: Tensor
    ) -> Tensor:
        """Mean loss of a batch; true quaternions of unit length."""
        probability_BN = torch.softmax(answers.logits_BN, 1)
        # δ_i - δ̂_i is the difference of the positions: the anchor itself cancels.
        offset_BN = (answers.t_BN3 - t_true_B3[:, None]).square().sum(2)
        q_true_BN4 = same_side(q_true_B4[:, None].expand_as(answers.q_BN4), answers.q_BN4)
        turn_BN = (answers.q_BN4 - q_true_BN4).square().sum(2)
        loss = (probability_BN * (self.alpha * offset_BN + self.kappa * turn_BN)).sum(1).mean()
        if self.cross_entropy > 0.0:
            nearest_B = torch.cdist(t_true_B3, anchors_t_N3).argmin(1)
            loss = loss + self.cross_entropy * F.cross_entropy(answers.logits_BN, nearest_B)
        return loss
