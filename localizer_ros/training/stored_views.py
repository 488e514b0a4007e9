"""Views put through a frozen encoder once and stored: what stands behind it then trains in minutes on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.training.data import ViewSequences, drive_bounds, rows_before

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
        sequences: (N,) the drive of each frame.
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
    """Render and encode every frame ``variants`` times; a drive is turned, moved and lit alike throughout.

    Args:
        encoder: image to features.
        normalize: uint8 images (B, 3, h, w) to its input.
        frames: of the recording.
        variants: V.
        progress: told as it goes.
    """
    data = frames.data
    device = next(encoder.parameters()).device
    first, last = drive_bounds(data.sequences)
    drives = sorted(set(zip(first.tolist(), last.tolist(), strict=True)))
    coarse, fine, depth, t, q = ([] for _ in range(5))
    encoder.eval()
    for variant in range(variants):
        for start, end in drives:
            rng = np.random.default_rng((frames.seed, variant, start))
            views = frames.render(list(range(start, end + 1)), rng)
            for at in range(0, len(views.images), _BATCH):
                batch = torch.from_numpy(views.images[at : at + _BATCH]).permute(0, 3, 1, 2).to(device)
                with torch.autocast(device.type, torch.bfloat16):
                    features = encoder(normalize(batch))
                coarse.append(features.coarse.half().cpu().contiguous())
                fine.append(features.fine.half().cpu().contiguous())
            depth.append(torch.from_numpy(views.inverse_depth).half())
            t.extend(T.t for T in views.poses)
            q.extend(T.quaternion_xyzw() for T in views.poses)
            progress("storing views", len(t), variants * len(data))
    shape = (variants, len(data))
    return StoredViews(
        torch.cat(coarse).unflatten(0, shape),
        torch.cat(fine).unflatten(0, shape),
        torch.cat(depth).unflatten(0, shape),
        torch.from_numpy(np.array(t, np.float32)).unflatten(0, shape),
        torch.from_numpy(np.array(q, np.float32)).unflatten(0, shape),
        data.sequences,
    )


class StoredSequences(Dataset[dict[str, Tensor]]):
    """Sequences of stored views; the same (seed, epoch, index) always gives the same one.

    An item ends with a view of frame ``index``. It holds ``coarse`` (T, C, h, w), ``t`` (T, 3), ``q`` (T, 4), and
    of the last frame ``fine`` (F, h, w) and ``inverse_depth`` (h, w).

    Args:
        stored: the views.
        length: T.
        stride: frames of a sequence are up to this far apart, forwards or backwards in time.
        seed: of everything drawn at random.
    """

    def __init__(self, stored: StoredViews, length: int, stride: int, seed: int) -> None:
        self.stored, self.length, self.stride, self.seed = stored, length, stride, seed
        self.epoch = 0
        self._first, self._last = drive_bounds(stored.sequences)

    def __len__(self) -> int:
        return len(self.stored.sequences)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        stored = self.stored
        variant = int(rng.integers(len(stored.t)))
        rows = rows_before(
            index, self.length, self.stride, int(self._first[index]), int(self._last[index]), rng
        )
        return {
            "coarse": stored.coarse[variant, rows].float(),
            "t": stored.t[variant, rows],
            "q": stored.q[variant, rows],
            "fine": stored.fine[variant, rows[-1]].float(),
            "inverse_depth": stored.inverse_depth[variant, rows[-1]].float(),
        }
