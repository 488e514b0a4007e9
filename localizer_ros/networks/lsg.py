"""Local Supports Global (Xue et al., ICCV 2019): a stream of images, localized with the help of what was just seen.

One encoder serves two branches. Visual odometry fuses the features of two successive frames and carries them along in a
ConvLSTM; its hidden states are a local map. The absolute branch looks its own features up in the last states of that
map, and adds what it finds (content augmentation).

The motion that the paper takes from the hidden states is several times less exact than aligning images by depth
(``motion``). A network with an *aligned* motion head learns the former, for the local map's sake, and answers the depth
for the latter.

:meth:`Lsg.sequence` runs on feature maps of whole sequences, so that it can train on features that were stored;
``forward`` is one step of a stream, and is the same code on a sequence of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.networks.descriptor import pooled
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.heads import PoseHead, build_neck, sigma_layers
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.scene_network import SceneNetwork

# Log standard deviations of motions (rad, metres) stay within these: 3e-4 and 7.
_LOG_SIGMA_LIMITS = (-8.0, 2.0)


class LsgSize(NamedTuple):
    """What an LsG is made of.

    Attributes:
        encoder: name in ``encoders.build.ENCODERS``.
        channels: of all maps behind the encoder; fewer than the encoder's are squeezed by a 1x1 convolution.
        memory: how many hidden states are attended; 0 = without content augmentation.
        head: neck of the absolute head, a name in ``heads.NECKS``.
        hidden: width of the absolute head.
        motion_hidden: width of the head that reads motion off the hidden state.
    """

    encoder: str
    channels: int
    memory: int
    head: str
    hidden: int
    motion_hidden: int


# As in the paper, and one for a robot without a GPU.
SIZES = {
    "full": LsgSize("resnet34", 512, 5, "pooled", 2048, 2048),
    "light": LsgSize("mobilenet_v2", 96, 5, "spatial", 512, 256),
}


class LsgState(NamedTuple):
    """What a stream carries from one step to the next; zeros at its start.

    Attributes:
        previous_BChw: features of the frame before.
        cell_BChw: cell of the ConvLSTM.
        memory_BNChw: its last N hidden states, the newest last.
    """

    previous_BChw: Tensor
    cell_BChw: Tensor
    memory_BNChw: Tensor


class LsgOutput(NamedTuple):
    """Answers for one frame each, of any leading shape: (B,) for a step, (B, T) for sequences.

    Attributes:
        t: (..., 3) camera position in the map, metres.
        q: (..., 4) orientation quaternion (x, y, z, w) of the camera in the map, not normalised.
        log_sigma: (..., 6) log of the standard deviations of [rotation (rad), translation (m)].
        rel: (..., 6) motion since the frame before, [rotation vector (rad), translation (m)] of ``T_prev_cur``; without
            meaning for the first frame of a stream.
        rel_log_sigma: (..., 6) its log standard deviations.
    """

    t: Tensor
    q: Tensor
    log_sigma: Tensor
    rel: Tensor
    rel_log_sigma: Tensor


class LsgStep(NamedTuple):
    """One step of a stream: the answers of :class:`LsgOutput`, the image's descriptor, and the fields of the next
    :class:`LsgState`."""

    t_B3: Tensor
    q_B4: Tensor
    log_sigma_B6: Tensor
    rel_B6: Tensor
    rel_log_sigma_B6: Tensor
    descriptor_BC: Tensor
    previous_BChw: Tensor
    cell_BChw: Tensor
    memory_BNChw: Tensor


class AlignedLsgStep(NamedTuple):
    """One step of a stream of a network with an aligned motion head: depth, from which motion is solved for, instead of
    motion."""

    t_B3: Tensor
    q_B4: Tensor
    log_sigma_B6: Tensor
    inverse_depth_Bhw: Tensor
    descriptor_BC: Tensor
    previous_BChw: Tensor
    cell_BChw: Tensor
    memory_BNChw: Tensor


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions with a quarter of the channels inside; the shortcut projects
    where the channels change. No norms: successive frames are far too much alike for batch statistics."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inside = channels // 4
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, inside, 1),
            nn.ReLU(),
            nn.Conv2d(inside, inside, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(inside, channels, 1),
        )
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.layers(x))


def _initialize(module: nn.Module) -> None:
    # Without norms PyTorch's own initialisation would shrink a map to next to nothing in a few layers.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class ConvLstmCell(nn.Module):
    """ConvLSTM (Shi et al., NeurIPS 2015) without peepholes, kernel 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)
        assert self.gates.bias is not None
        with torch.no_grad():
            self.gates.bias.view(4, channels)[1] = 1.0  # remember at first

    def forward(self, x_BChw: Tensor, hidden_BChw: Tensor, cell_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Next hidden state and cell."""
        enter, keep, show, new = self.gates(torch.cat([x_BChw, hidden_BChw], 1)).chunk(4, 1)
        cell = torch.sigmoid(keep) * cell_BChw + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(show) * torch.tanh(cell), cell


class ContentAugmentation(nn.Module):
    """Soft attention of a feature map over hidden states: ``X' = X + Σ_i A^T_i A^S_i H_i``, channel by channel.

    Similarity is the cosine of a channel's map to the same channel of a state. A^T normalises it over the states, A^S
    over the channels of a state, scaled to a mean of 1: states all alike pass unchanged. States that are all zero,
    before the start of the stream, are not there. Cosines lie within ±1, so how sharply to choose is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_sharpness_time = nn.Parameter(torch.tensor(1.0))
        self.log_sharpness_space = nn.Parameter(torch.tensor(1.0))

    def forward(self, x_BChw: Tensor, states_BNChw: Tensor) -> Tensor:
        """The augmented features, (B, C, h, w)."""
        x, states = x_BChw.flatten(2)[:, None], states_BNChw.flatten(3)
        size_BNC = states.square().sum(3)
        # Not "+ 1e-12": the ONNX exporter takes so little for nothing and drops it.
        cosine_BNC = (x * states).sum(3) / (x.square().sum(3) * size_BNC).clamp_min(1e-12).sqrt()
        known_BN1 = (size_BNC.sum(2, keepdim=True) > 0.0).to(x.dtype)
        time = torch.exp(self.log_sharpness_time.exp() * (cosine_BNC - 1.0)) * known_BN1
        time = time / time.sum(1, keepdim=True).clamp_min(1e-9)
        space = torch.softmax(self.log_sharpness_space.exp() * cosine_BNC, 2) * cosine_BNC.shape[2]
        attended = ((time * space)[..., None] * states).sum(1)
        return x_BChw + attended.reshape(x_BChw.shape)


class MeanMotionHead(nn.Module):
    """Motion and its sigma from the mean over a hidden state.

    Attributes:
        scale_6: buffer, typical size of a motion [rotation (rad), translation (m)]; the head starts near zero motion.
    """

    scale_6: Tensor

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, hidden)
        self.rotation = nn.Linear(hidden, 3)
        self.translation = nn.Linear(hidden, 3)
        self.sigma = sigma_layers(hidden)
        self.register_buffer("scale_6", torch.ones(6))
        for layer in (self.rotation, self.translation):
            nn.init.normal_(layer.weight, std=1e-2)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6) motion and (B, 6) log standard deviations."""
        x = F.relu(self.hidden(hidden_BChw.mean((2, 3))))
        motion = torch.cat([self.rotation(x), self.translation(x)], 1)
        return self.scale_6 * motion, self.sigma(x.detach()).clamp(*_LOG_SIGMA_LIMITS)


class Lsg(SceneNetwork):
    """Encoder, VO branch with its memory, absolute branch.

    Args:
        encoder: any of ``encoders``.
        size: sizes of everything behind it; its encoder's name is not looked at.
        size_hw: height and width of the input, pixels, multiples of 32.
        dropout: before the absolute pose, while training.
        aligned: with a motion head that aligns images.

    Attributes:
        motion: that head, or None.
    """

    def __init__(
        self, encoder: Encoder, size: LsgSize, size_hw: tuple[int, int], dropout: float, aligned: bool
    ) -> None:
        super().__init__()
        channels, (h, w) = size.channels, (size_hw[0] // 32, size_hw[1] // 32)
        self.encoder = encoder
        self.squeeze: nn.Module = nn.Identity()
        if channels != encoder.coarse_channels:
            self.squeeze = nn.Sequential(nn.Conv2d(encoder.coarse_channels, channels, 1), nn.ReLU())
        self.fuse = nn.Sequential(Bottleneck(2 * channels, channels), Bottleneck(channels, channels))
        self.recurrent = ConvLstmCell(channels)
        self.fused_motion = MeanMotionHead(channels, size.motion_hidden)
        self.motion = MotionHead(encoder.fine_channels, encoder.coarse_channels) if aligned else None
        self.augmentation = ContentAugmentation() if size.memory else None
        self.refine = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        for part in (self.squeeze, self.fuse, self.refine):
            part.apply(_initialize)
        self.absolute = PoseHead(build_neck(size.head, channels, h * w, size.hidden), dropout)
        # The newest hidden state is needed even where none is attended.
        self.state_shapes = ((channels, h, w), (channels, h, w), (max(1, size.memory), channels, h, w))

    def start(self, batch: int) -> LsgState:
        """The state of a stream before its first frame."""
        parameter = self.recurrent.gates.weight
        return LsgState(*(parameter.new_zeros(batch, *shape) for shape in self.state_shapes))

    def sequence(self, coarse_BTChw: Tensor, state: LsgState | None = None) -> tuple[LsgOutput, LsgState]:
        """Answers for T successive frames of B streams.

        Args:
            coarse_BTChw: coarse features of the encoder.
            state: where the streams left off; None at their start.

        Returns:
            Answers of leading shape (B, T), and the state after the last frame.
        """
        b, steps = coarse_BTChw.shape[:2]
        state = self.start(b) if state is None else state
        x = self.squeeze(coarse_BTChw.flatten(0, 1)).unflatten(0, (b, steps))
        previous = torch.cat([state.previous_BChw[:, None], x[:, :-1]], 1)
        fused = self.fuse(torch.cat([previous, x], 2).flatten(0, 1)).unflatten(0, (b, steps))
        hidden, cell = state.memory_BNChw[:, -1], state.cell_BChw
        states = []
        for step in range(steps):
            hidden, cell = self.recurrent(fused[:, step], hidden, cell)
            states.append(hidden)
        rel, rel_log_sigma = self.fused_motion(torch.stack(states, 1).flatten(0, 1))
        memory = torch.cat([state.memory_BNChw, torch.stack(states, 1)], 1)
        n = state.memory_BNChw.shape[1]
        y = x.flatten(0, 1)
        if self.augmentation is not None:
            # For each frame the last n states, its own among them.
            windows = torch.stack([memory[:, step + 1 : step + 1 + n] for step in range(steps)], 1)
            y = self.augmentation(y, windows.flatten(0, 1))
        answers = (*self.absolute(self.refine(y)), rel, rel_log_sigma)
        output = LsgOutput(*(answer.unflatten(0, (b, steps)) for answer in answers))
        return output, LsgState(x[:, -1], cell, memory[:, -n:])

    def forward(
        self, image_B3HW: Tensor, previous_BChw: Tensor, cell_BChw: Tensor, memory_BNChw: Tensor
    ) -> LsgStep | AlignedLsgStep:
        """One step: the next image of B streams, and their states."""
        features = self.encoder(image_B3HW)
        state = LsgState(previous_BChw, cell_BChw, memory_BNChw)
        output, state = self.sequence(features.coarse[:, None], state)
        t, q, log_sigma, rel, rel_log_sigma = (answer[:, 0] for answer in output)
        descriptor = pooled(features.coarse)
        if self.motion is None:
            return LsgStep(t, q, log_sigma, rel, rel_log_sigma, descriptor, *state)
        inverse_depth = self.motion.inverse_depth(*features)
        return AlignedLsgStep(t, q, log_sigma, inverse_depth, descriptor, *state)
