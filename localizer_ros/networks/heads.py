"""From the coarse features of an image to its absolute pose: ``head(coarse_BChw) -> (t_B3, q_B4, log_sigma_B6)``.

A *neck* makes one vector of the feature map, a head reads an answer off it. Four necks of the literature stand behind
one interface, and every head takes any of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Log standard deviations of poses (rad, metres) stay within these: 1e-3 and 20.
LOG_SIGMA_LIMITS = (-7.0, 3.0)


class Neck(nn.Module):
    """Base of all necks: (B, C, h, w) to (B, ``width``), not negative where the last layer is a ReLU."""

    width: int


class PooledNeck(Neck):
    """PoseNet (Kendall et al., ICCV 2015): mean over the image, one wide layer, 2048 in the paper."""

    def __init__(self, channels: int, cells: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.hidden = nn.Linear(channels, hidden)

    def forward(self, coarse_BChw: Tensor) -> Tensor:
        return F.relu(self.hidden(coarse_BChw.mean((2, 3))))


class SpatialNeck(Neck):
    """A few channels keep their place in the image (flattened), the rest is pooled as in the paper: where a thing is
    seen says as much of the pose as that it is seen."""

    def __init__(self, channels: int, cells: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        kept = max(8, min(128, channels // 4, 6144 // cells))
        self.place = nn.Conv2d(channels, kept, 1)
        self.hidden = nn.Linear(channels + kept * cells, hidden)

    def forward(self, coarse_BChw: Tensor) -> Tensor:
        placed = F.relu(self.place(coarse_BChw)).flatten(1)
        return F.relu(self.hidden(torch.cat([coarse_BChw.mean((2, 3)), placed], 1)))


class LstmNeck(Neck):
    """LSTM-PoseNet (Walch et al., ICCV 2017): the pooled feature as an image of 32 rows, 32 x 64 in the paper, read by
    four LSTMs: to the right, to the left, down and up. Their last outputs are the new feature.

    Raises:
        ValueError: ``hidden`` is not a multiple of 32.
    """

    rows = 32
    memory = 128

    def __init__(self, channels: int, cells: int, hidden: int) -> None:
        super().__init__()
        if hidden % self.rows:
            raise ValueError(f"hidden: expected a multiple of {self.rows} for the LSTM head, got {hidden}")
        self.pooled = PooledNeck(channels, cells, hidden)
        self.width = 4 * self.memory
        self.horizontal = nn.LSTM(self.rows, self.memory, batch_first=True, bidirectional=True)
        self.vertical = nn.LSTM(hidden // self.rows, self.memory, batch_first=True, bidirectional=True)

    def forward(self, coarse_BChw: Tensor) -> Tensor:
        image_BRC = self.pooled(coarse_BChw).unflatten(1, (self.rows, -1))
        _, (across_2BM, _) = self.horizontal(image_BRC.transpose(1, 2))
        _, (along_2BM, _) = self.vertical(image_BRC)
        return torch.cat([across_2BM, along_2BM]).transpose(0, 1).flatten(1)


class AtlocNeck(Neck):
    """AtLoc (Wang et al., AAAI 2020): the pooled feature attends to itself, ``x + W softmax(θ φᵀ) g`` with θ, φ and g
    of an eighth of its width.

    Raises:
        ValueError: ``hidden`` is not a multiple of 8.
    """

    def __init__(self, channels: int, cells: int, hidden: int) -> None:
        super().__init__()
        if hidden % 8:
            raise ValueError(f"hidden: expected a multiple of 8 for the AtLoc head, got {hidden}")
        self.pooled = PooledNeck(channels, cells, hidden)
        self.width = hidden
        self.theta, self.phi, self.g = (nn.Linear(hidden, hidden // 8) for _ in range(3))
        self.back = nn.Linear(hidden // 8, hidden)

    def forward(self, coarse_BChw: Tensor) -> Tensor:
        x: Tensor = self.pooled(coarse_BChw)
        attention_BDD = torch.softmax(self.theta(x)[:, :, None] * self.phi(x)[:, None, :], 2)
        attended: Tensor = self.back((attention_BDD @ self.g(x)[:, :, None])[..., 0])
        return x + attended


NECKS: dict[str, Callable[[int, int, int], Neck]] = {
    "spatial": SpatialNeck,
    "pooled": PooledNeck,
    "lstm": LstmNeck,
    "atloc": AtlocNeck,
}


def build_neck(name: str, channels: int, cells: int, hidden: int) -> Neck:
    """A neck with random weights.

    Args:
        name: ``spatial``, ``pooled``, ``lstm`` or ``atloc``.
        channels: of the feature map.
        cells: h · w of the feature map.
        hidden: width of its wide layer; the papers' is 2048.

    Raises:
        ValueError: unknown name, or a width it cannot have.
    """
    if name not in NECKS:
        raise ValueError(f"head: expected one of {', '.join(NECKS)}, got {name!r}")
    return NECKS[name](channels, cells, hidden)


def sigma_layers(width: int) -> nn.Sequential:
    """From a feature to the log standard deviations of [rotation (rad), translation (m)], before clamping."""
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 6))


class PoseHead(nn.Module):
    """Regresses position, orientation and their sigmas.

    Attributes:
        centre: (3,) buffer, mean of the training positions; the head starts from it.
        scale: () buffer, size of the scene, metres.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, neck: Neck, dropout: float) -> None:
        super().__init__()
        self.neck = neck
        self.dropout = nn.Dropout(dropout)
        self.position = nn.Linear(neck.width, 3)
        self.orientation = nn.Linear(neck.width, 4)
        self.sigma = sigma_layers(neck.width)
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("scale", torch.ones(()))
        nn.init.zeros_(self.position.bias)
        nn.init.normal_(self.position.weight, std=1e-2)

    def forward(self, coarse_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position in the map, metres; quaternion (x, y, z, w), not normalised; log standard deviations of
        [rotation (rad), translation (m)] in the tangent of the pose."""
        x = self.neck(coarse_BChw)
        # Sigmas must not shape the features the pose is read from.
        log_sigma = self.sigma(x.detach()).clamp(*LOG_SIGMA_LIMITS)
        x = self.dropout(x)
        return self.centre + self.scale * self.position(x), self.orientation(x), log_sigma
