"""Views put through a frozen encoder once and stored: what stands behind it then trains in minutes on a CPU."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.training.data import (
    PosedImages,
    ViewSequences,
    rows_before,
    sequence_bounds,
    whole_sequences,
)
from localizer_ros.training.runtime import trains_in_bf16

# Images that go through the encoder together.
_BATCH = 32


@dataclass(frozen=True, eq=False)
class StoredViews:
    """Features of V augmented views of each of N frames.

    Attributes:
        coarse: (V, N, C, h / 32, w / 32) float16.
        fine: (V, N, F, h / 8, w / 8) float16.
        inverse_depth: (V, N, h / 8, w / 8) float16, zero where unknown.
        t: (V, N, 3) float32 position of ``T_map_cam``.
        q: (V, N, 4) float32 quaternion, xyzw.
        sequences: (N,) the recorded sequence of each frame.
    """

    coarse: Tensor
    fine: Tensor
    inverse_depth: Tensor
    t: Tensor
    q: Tensor
    sequences: NDArray[np.int64]


@torch.no_grad()
def store_views(
    encoder: nn.Module,
    normalize: nn.Module,
    frames: ViewSequences,
    variants: int,
    progress: Progress = no_progress,
) -> StoredViews:
    """Every frame, rendered and encoded ``variants`` times; a sequence is turned, moved and lit alike throughout.

    Args:
        encoder: image to features.
        normalize: uint8 images (B, 3, h, w) to its input.
        frames: of the recording.
        variants: V.
        progress: told as it goes.
    """
    data = frames.data
    device = next(encoder.parameters()).device
    half = trains_in_bf16("auto", device)
    encoder.eval()
    stored: StoredViews | None = None
    for variant in range(variants):
        for start, end in whole_sequences(data.sequences):
            rng = np.random.default_rng((frames.seed, variant, start))
            views = frames.render(range(start, end + 1), rng)
            for row in range(start, end + 1, _BATCH):
                some = list(itertools.islice(views, min(_BATCH, end + 1 - row)))
                images = torch.from_numpy(np.stack([view.image for view in some])).permute(0, 3, 1, 2)
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    fine, coarse = encoder(normalize(images.to(device)))
                if stored is None:
                    stored = _room(variants, data, coarse.shape[1:], fine.shape[1:])
                where = variant, slice(row, row + len(some))
                stored.coarse[where].copy_(coarse)
                stored.fine[where].copy_(fine)
                depths = np.stack([view.inverse_depth for view in some])
                stored.inverse_depth[where].copy_(torch.from_numpy(depths))
                poses = [view.T_map_cam for view in some]
                stored.t[where] = torch.tensor(np.array([T.t for T in poses]))
                stored.q[where] = torch.tensor(np.array([T.quaternion_xyzw() for T in poses]))
                progress("storing views", variant * len(data) + row + len(some), variants * len(data))
    assert stored is not None
    return stored


def _room(variants: int, data: PosedImages, coarse: torch.Size, fine: torch.Size) -> StoredViews:
    shape = (variants, len(data))
    return StoredViews(
        coarse=torch.empty(*shape, *coarse, dtype=torch.float16),
        fine=torch.empty(*shape, *fine, dtype=torch.float16),
        inverse_depth=torch.empty(*shape, *fine[1:], dtype=torch.float16),
        t=torch.empty(*shape, 3),
        q=torch.empty(*shape, 4),
        sequences=data.sequences,
    )


class StoredSequences(Dataset[dict[str, Tensor]]):
    """Training sequences of stored views; the same seed and number always give the same one.

    Item ``epoch * len + index`` ends with a view of frame ``index``. It holds ``coarse`` (T, C, h, w) float16,
    ``t`` (T, 3), ``q`` (T, 4), and of the last frame ``fine`` (F, h, w) and ``inverse_depth`` (h, w), float16.

    Args:
        stored: the views.
        length: T.
        stride: frames of a training sequence are up to this far apart, forwards or backwards in time.
        seed: of everything drawn at random.
    """

    def __init__(self, stored: StoredViews, length: int, stride: int, seed: int) -> None:
        self.stored, self.length, self.stride, self.seed = stored, length, stride, seed
        self._first, self._last = sequence_bounds(stored.sequences)

    def __len__(self) -> int:
        """Items of one epoch."""
        return len(self.stored.sequences)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, index = divmod(number, len(self))
        rng = np.random.default_rng((self.seed, epoch, index))
        stored = self.stored
        variant = int(rng.integers(len(stored.t)))
        bounds = int(self._first[index]), int(self._last[index])
        rows = rows_before(index, self.length, self.stride, bounds, rng)
        return {
            "coarse": stored.coarse[variant, rows],
            "t": stored.t[variant, rows],
            "q": stored.q[variant, rows],
            "fine": stored.fine[variant, rows[-1]],
            "inverse_depth": stored.inverse_depth[variant, rows[-1]],
        }
