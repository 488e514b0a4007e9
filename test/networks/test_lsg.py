"""Local Supports Global: streams equal batches, memory works, every part learns, it exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx_export import exported
from torch import nn

from localizer_ros.networks.encoders.build import build_encoder
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.losses import LsgLoss
from localizer_ros.networks.lsg import (
    SIZES,
    AlignedLsgStep,
    ContentAugmentation,
    ConvLstmCell,
    Lsg,
    LsgSize,
    LsgState,
)
from localizer_ros.networks.poses import Pose


class SmallEncoder(Encoder):
    """Strides of a real encoder, nothing else."""

    fine_channels, coarse_channels = 8, 32

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 32, 4, 4)

    def fine_layers(self) -> nn.Sequential:
        return nn.Sequential(self.fine, nn.ReLU())

    def coarse_layers(self) -> nn.Sequential:
        return nn.Sequential(self.coarse, nn.ReLU())


def small(channels: int = 16, memory: int = 3, head: str = "spatial", aligned: bool = False) -> Lsg:
    torch.manual_seed(0)
    size = LsgSize("small", channels, memory, head, 16, 12)
    return Lsg(SmallEncoder(), size, (64, 96), 0.5, aligned).eval()


@pytest.mark.parametrize("channels", [16, 32])
@pytest.mark.parametrize("memory", [0, 1, 3])
@torch.no_grad()
def test_a_stream_of_steps_equals_the_batch(channels: int, memory: int) -> None:
    network = small(channels, memory)
    images = torch.randn(2, 6, 3, 64, 96)
    coarse = network.encoder(images.flatten(0, 1)).coarse.unflatten(0, (2, 6))
    output, last = network.sequence(coarse)
    state = network.start(2)
    for step in range(6):
        answer = network(images[:, step], *state)
        for streamed, batch in zip(answer[:5], output, strict=True):
            torch.testing.assert_close(streamed, batch[:, step], atol=1e-4, rtol=1e-4)
        state = LsgState(*answer[-3:])
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_aligned_stream_answers_depth_instead_of_motion() -> None:
    network, fused = small(aligned=True), small()
    fused.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("motion.")})
    image, state = torch.randn(2, 3, 64, 96), network.start(2)
    answer, paper = network(image, *state), fused(image, *state)
    assert isinstance(answer, AlignedLsgStep)
    assert answer.inverse_depth_Bhw.shape == (2, 8, 12) and (answer.inverse_depth_Bhw > 0).all()
    for name in ("t_B3", "q_B4", "log_sigma_B6", *LsgState._fields):
        torch.testing.assert_close(getattr(answer, name), getattr(paper, name))


@torch.no_grad()
def test_a_sequence_goes_on_where_another_left_off() -> None:
    network = small()
    coarse = torch.rand(1, 7, 32, 2, 3)
    whole, _ = network.sequence(coarse)
    first, state = network.sequence(coarse[:, :4])
    second, _ = network.sequence(coarse[:, 4:], state)
    for a, b, c in zip(whole, first, second, strict=True):
        torch.testing.assert_close(a, torch.cat([b, c], 1), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_streams_of_one_batch_do_not_see_each_other_or_the_future() -> None:
    network = small()
    coarse = torch.rand(2, 5, 32, 2, 3)
    output, _ = network.sequence(coarse)
    changed = coarse.clone()
    changed[1] = torch.rand(5, 32, 2, 3)
    changed[0, 4] = 0.0
    other, _ = network.sequence(changed)
    for a, b in zip(output, other, strict=True):
        torch.testing.assert_close(a[0, :4], b[0, :4])
        assert not torch.allclose(a[1], b[1])


@torch.no_grad()
def test_earlier_frames_change_the_absolute_pose_only_with_content_augmentation() -> None:
    for memory in (0, 3):
        network = small(memory=memory)
        coarse = torch.rand(1, 3, 32, 2, 3)
        other = torch.cat([torch.rand(1, 2, 32, 2, 3), coarse[:, 2:]], 1)
        a, b = (network.sequence(c)[0].t[:, 2] for c in (coarse, other))
        assert torch.equal(a, b) == (memory == 0)


def test_every_parameter_learns_from_the_three_losses() -> None:
    network, loss = small(), LsgLoss()
    network.train()
    images = torch.randn(8, 3, 64, 96)
    coarse = network.encoder(images).coarse.unflatten(0, (2, 4))
    output, _ = network.sequence(coarse)
    true = Pose(torch.randn(2, 4, 3), nn.functional.normalize(torch.randn(2, 4, 4), dim=-1))
    total = sum(loss(Pose(output.t, output.q), output.rel, true))
    (total + output.log_sigma.sum() + output.rel_log_sigma.sum()).backward()
    for key, parameter in [*network.named_parameters(), *loss.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("memory", [0, 3])
def test_sequences_can_be_learned(memory: int) -> None:
    network = small(memory=memory)  # without dropout
    coarse, t, rel = torch.rand(2, 5, 32, 2, 3), torch.randn(2, 5, 3), torch.randn(2, 5, 6)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        output, _ = network.sequence(coarse)
        absolute, motion = (output.t - t).square().mean(), (output.rel - rel).square().mean()
        optimizer.zero_grad()
        (absolute + motion).backward()
        optimizer.step()
    # Both begin at 1; measured after 100 steps: 0.0006 and 0.02 to 0.07.
    assert absolute.item() < 0.05 and motion.item() < 0.3


# --- parts ---


def test_the_cell_remembers_with_an_open_gate_and_forgets_with_a_shut_one() -> None:
    cell, x, memory = ConvLstmCell(4), torch.zeros(1, 4, 3, 3), torch.rand(1, 4, 3, 3)
    nn.init.zeros_(cell.gates.weight)
    for keep, expected in ((50.0, memory), (-50.0, torch.zeros_like(memory))):
        with torch.no_grad():
            cell.gates.bias.zero_().view(4, 4)[1] = keep
        hidden, after = cell(x, torch.zeros_like(x), memory)
        torch.testing.assert_close(after, expected)
        torch.testing.assert_close(hidden, 0.5 * torch.tanh(expected))


def test_attention_passes_states_that_are_all_alike() -> None:
    attend, x = ContentAugmentation(), torch.rand(1, 4, 2, 3)
    one = torch.rand(1, 1, 1, 2, 3)
    # Of one shape in all channels, so that neither states nor channels differ in their likeness to x.
    same_x = one[:, 0].expand(1, 4, 2, 3)
    torch.testing.assert_close(attend(same_x, one.expand(1, 5, 4, 2, 3)), 2.0 * same_x)
    torch.testing.assert_close(attend(x, torch.zeros(1, 5, 4, 2, 3)), x)


def test_attention_chooses_the_state_that_looks_alike() -> None:
    torch.manual_seed(0)
    attend, x = ContentAugmentation(), torch.randn(1, 6, 4, 5)
    with torch.no_grad():
        attend.log_sharpness_time.fill_(4.0)
    states = torch.randn(1, 3, 6, 4, 5)
    states[:, 1] = 0.5 * x
    torch.testing.assert_close(attend(x, states), 1.5 * x, atol=0.05, rtol=0.05)


def test_attention_ignores_the_order_of_states_and_empty_ones() -> None:
    torch.manual_seed(0)
    attend, x, states = ContentAugmentation(), torch.randn(2, 6, 4, 5), torch.randn(2, 3, 6, 4, 5)
    expected = attend(x, states)
    torch.testing.assert_close(attend(x, states.flip(1)), expected)
    torch.testing.assert_close(attend(x, torch.cat([torch.zeros(2, 2, 6, 4, 5), states], 1)), expected)
    torch.testing.assert_close(attend(x, 3.0 * states) - x, 3.0 * (expected - x))  # cosines see no size


# --- sizes and export ---


def test_the_light_network_stays_small_and_the_full_one_is_as_in_the_paper() -> None:
    with torch.device("meta"):
        light, full = (
            Lsg(build_encoder(size.encoder), size, (224, 224), 0.5, aligned=False)
            for size in (SIZES["light"], SIZES["full"])
        )
    assert 2 * sum(value.numel() for value in light.state_dict().values()) < 25e6  # bytes, half precision
    assert isinstance(full.squeeze, nn.Identity)
    assert full.recurrent.gates.weight.shape == (4 * 512, 2 * 512, 3, 3)
    assert full.state_shapes == ((512, 7, 7), (512, 7, 7), (5, 512, 7, 7))


@torch.no_grad()
def test_an_exported_step_equals_pytorch_along_a_stream(tmp_path: Path) -> None:
    network = small()
    state = network.start(1)
    step = exported(network, (torch.zeros(1, 3, 64, 96), *state), tmp_path)
    for _ in range(5):  # from an empty memory to a full one
        inputs = (torch.randn(1, 3, 64, 96), *state)
        expected = network(*inputs)
        for answer, value in zip(step(*inputs), expected, strict=True):
            torch.testing.assert_close(answer, value, atol=1e-5, rtol=1e-4)
        state = LsgState(*expected[-3:])
