"""Anchor points: one pose from many answers, its sigma, and that the relevant anchor is discovered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_export import exported
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from localizer_ros.networks.anchors import AnchorAnswers, AnchorHead, AnchorLoss, anchor_pose
from localizer_ros.networks.heads import build_neck
from localizer_ros.networks.poses import quaternion_product, rotate, same_side


def random_quaternions(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, 4), dim=-1)


def anchor_head(orientation: str = "relative", answer: str = "mean", anchors: int = 7) -> AnchorHead:
    torch.manual_seed(0)
    head = AnchorHead(build_neck("pooled", 12, 6, 32), 0.0, anchors, orientation, answer)
    head.set_anchors(10.0 * torch.randn(anchors, 3), random_quaternions(anchors))
    return head


def certain(t: torch.Tensor, q: torch.Tensor, chosen: int, floor: float = -5.0) -> AnchorAnswers:
    """Answers of which one is all but sure; (N, 3) and (N, 4)."""
    logits = torch.zeros(1, len(t))
    logits[0, chosen] = 50.0
    return AnchorAnswers(logits, t[None], q[None], torch.full((1, 6), floor))


@pytest.mark.parametrize("orientation", ["absolute", "relative"])
@pytest.mark.parametrize("answer", ["argmax", "mean"])
def test_an_anchor_head_is_a_pose_head_and_every_parameter_learns(orientation: str, answer: str) -> None:
    head = anchor_head(orientation, answer)
    coarse = torch.rand(3, 12, 2, 3)
    t, q, log_sigma = head(coarse)
    assert t.shape == (3, 3) and q.shape == (3, 4) and log_sigma.shape == (3, 6)
    torch.testing.assert_close(q.norm(dim=1), torch.ones(3))
    answers = head.answers(coarse)
    loss = AnchorLoss(2.4, 20.0, 0.0)(answers, head.anchors_t_N3, torch.randn(3, 3), random_quaternions(3))
    (loss + head(coarse)[2].sum()).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_zero_layers_answer_the_anchors_themselves() -> None:
    head = anchor_head()
    for layer in (head.offset, head.orientation):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    answers = head.answers(torch.rand(2, 12, 2, 3))
    torch.testing.assert_close(answers.t_BN3[1], head.anchors_t_N3)
    torch.testing.assert_close(answers.q_BN4[1], head.anchors_q_N4)


@pytest.mark.parametrize("mean", [False, True])
def test_one_certain_anchor_is_the_answer_and_leaves_only_the_floor_of_sigma(mean: bool) -> None:
    torch.manual_seed(0)
    t_N3, q_N4 = torch.randn(5, 3), random_quaternions(5)
    t, q, log_sigma = anchor_pose(certain(t_N3, 3.0 * q_N4, 3), mean)
    torch.testing.assert_close(t[0], t_N3[3])
    torch.testing.assert_close(same_side(q[0], q_N4[3]), q_N4[3])
    torch.testing.assert_close(log_sigma, torch.full((1, 6), -5.0), atol=1e-2, rtol=0.0)


def test_two_anchors_that_disagree_give_their_mean_and_a_sigma_along_their_difference() -> None:
    turn = torch.tensor(Rotation.from_rotvec([0.0, 0.2, 0.0]).as_quat(), dtype=torch.float32)
    base = torch.tensor(Rotation.from_rotvec([0.3, -0.5, 1.0]).as_quat(), dtype=torch.float32)
    q_N4 = torch.stack([quaternion_product(base, turn), -base])  # signs say nothing
    half = torch.tensor(Rotation.from_rotvec([0.0, 0.1, 0.0]).as_quat(), dtype=torch.float32)
    q_middle = quaternion_product(base, half)
    # Apart along the z axis of the body that answers.
    t_N3 = torch.tensor([1.0, 2.0, 3.0]) + rotate(q_middle, torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, -0.4]]))
    answers = AnchorAnswers(torch.zeros(1, 2), t_N3[None], q_N4[None], torch.full((1, 6), -7.0))
    t, q, log_sigma = anchor_pose(answers, mean=True)
    torch.testing.assert_close(t[0], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(same_side(q[0], q_middle), q_middle)
    expected = torch.tensor([0.0, 0.1, 0.0, 0.0, 0.0, 0.4])
    torch.testing.assert_close(log_sigma[0].exp(), expected, atol=2e-3, rtol=1e-3)
    # One of the two alone, which is turned by 0.1: half of the probability is 0.8 m away.
    expected_m = np.cos(0.1) * 0.8 / np.sqrt(2.0)
    assert anchor_pose(answers, mean=False)[2][0, 5].exp().item() == pytest.approx(expected_m, rel=1e-3)


def test_the_loss_is_least_where_the_relevant_anchor_tells_the_truth() -> None:
    torch.manual_seed(0)
    loss, anchors = AnchorLoss(2.4, 20.0, 0.0), torch.randn(5, 3)
    t_N3, q_N4 = torch.randn(5, 3), random_quaternions(5)
    perfect = loss(certain(t_N3, -q_N4, 3), anchors, t_N3[3:4], q_N4[3:4])
    assert perfect.item() < 1e-6
    for chosen in (0, 1, 2, 4):
        assert loss(certain(t_N3, q_N4, chosen), anchors, t_N3[3:4], q_N4[3:4]) > 0.1
    # By hand: 2.4 (0.3² + 0.4²) when everything else is right.
    moved = loss(certain(t_N3, q_N4, 3), anchors, t_N3[3:4] + torch.tensor([0.3, 0.0, 0.4]), q_N4[3:4])
    assert moved.item() == pytest.approx(2.4 * 0.25, rel=1e-4)


def test_cross_entropy_asks_for_the_nearest_anchor() -> None:
    anchors = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    logits = torch.zeros(1, 2, requires_grad=True)
    truth = torch.tensor([[4.0, 0.0, 0.0]])
    q = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    answers = AnchorAnswers(logits, truth[None].expand(1, 2, 3), q[None].expand(1, 2, 4), torch.zeros(1, 6))
    AnchorLoss(2.4, 20.0, 1.0)(answers, anchors, truth, q).backward()
    assert logits.grad[0, 1] < -0.1 < 0.1 < logits.grad[0, 0]


def test_the_relevant_anchor_is_discovered_without_being_told() -> None:
    # Offsets can only be told for half of the anchors each: the head must find out which half, for every image.
    torch.manual_seed(0)
    anchors = torch.tensor([[-4.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    q = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(64, 4)
    side = torch.randint(0, 2, (64,))
    truth = anchors[side] + 0.3 * torch.randn(64, 3)
    features = F.one_hot(side, 2).float()
    relevance = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(relevance.parameters(), lr=0.1)
    for _ in range(60):
        answers = AnchorAnswers(
            relevance(features), anchors.expand(64, 2, 3), q[:, None].expand(64, 2, 4), torch.zeros(64, 6)
        )
        loss = AnchorLoss(2.4, 20.0, 0.0)(answers, anchors, truth, q)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(relevance(features).argmax(1), side)


def test_moving_the_map_moves_the_answer() -> None:
    head, coarse = anchor_head(), torch.rand(2, 12, 2, 3)
    t, q, log_sigma = head(coarse)
    shift = torch.tensor([5.0, -2.0, 1.0])
    head.set_anchors(head.anchors_t_N3 + shift, head.anchors_q_N4.clone())
    moved_t, moved_q, moved_log_sigma = head(coarse)
    torch.testing.assert_close(moved_t, t + shift, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(moved_q, q)
    torch.testing.assert_close(moved_log_sigma, log_sigma, atol=1e-4, rtol=1e-4)


def test_wrong_counts_and_options_of_an_anchor_head_are_errors() -> None:
    with pytest.raises(ValueError, match="anchors: expected 7, got 3"):
        anchor_head().set_anchors(torch.zeros(3, 3), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="orientation: expected absolute or relative"):
        anchor_head("none")
    with pytest.raises(ValueError, match="answer: expected argmax or mean"):
        anchor_head(answer="none")


@pytest.mark.parametrize("answer", ["argmax", "mean"])
def test_an_anchor_head_exports_to_onnx(answer: str, tmp_path: Path) -> None:
    head, coarse = anchor_head(answer=answer).eval(), torch.rand(1, 12, 2, 3)
    answers = exported(head, (coarse,), tmp_path)(coarse)
    for answer, expected in zip(answers, head(coarse), strict=True):
        torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)
