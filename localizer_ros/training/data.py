"""Recordings to training batches: images in memory, augmentation with exact geometry, sequences of nearby frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import Dataset

from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.exposure import brightened
from localizer_ros.core.preprocess import ImageWarper, to_rgb
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.training.augmentation import outside_black, random_appearance
from localizer_ros.training.virtual_views import SceneDepth, VirtualViews

# Turns and moves of each image of a training sequence, as a share of the common ones.
OWN_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class PosedImages:
    """Images as the network's camera would have seen them, with their poses.

    Attributes:
        images: (N, h, w, 3) uint8 RGB.
        poses: N ``T_map_cam``.
        sequences: (N,) int, frames of the same number belong to one recorded sequence and lie in order of time.
        names: N frame names.
        camera: the network's ideal pinhole camera.
        depth: of the images, for moved views.
    """

    images: NDArray[np.uint8]
    poses: tuple[SE3, ...]
    sequences: NDArray[np.int64]
    names: tuple[str, ...]
    camera: Camera
    depth: SceneDepth | None = None

    def __len__(self) -> int:
        return len(self.poses)

    def subset(self, indices: NDArray[np.int64]) -> PosedImages:
        """The frames at ascending ``indices``; where some are left out between two, a new sequence begins."""
        cut = (np.diff(indices) > 1) | (np.diff(self.sequences[indices]) != 0)
        return PosedImages(
            self.images[indices],
            tuple(self.poses[i] for i in indices),
            np.concatenate([[0], np.cumsum(cut)])[: len(indices)],
            tuple(self.names[i] for i in indices),
            self.camera,
            self.depth.subset(indices) if self.depth is not None else None,
        )


def load_posed_images(source: FrameSource, camera: Camera, progress: Progress = no_progress) -> PosedImages:
    """Every frame that has a pose, resampled onto ``camera``.

    Raises:
        SourceError: fewer than two frames have a pose, or an image cannot be read.
    """
    indices = [i for i, record in enumerate(source.records) if record.T_map_cam is not None]
    if len(indices) < 2:
        raise SourceError(f"{source.path}: {len(indices)} frames have a pose; training needs at least two")
    images = np.empty((len(indices), camera.height_px, camera.width_px, 3), np.uint8)
    numbers: dict[str, int] = {}
    sequences, poses, names = [], [], []
    warper: ImageWarper | None = None
    for row, index in enumerate(indices):
        record, frame = source.records[index], source.read(index)
        if warper is None or not frame.camera.same_as(warper.source):
            warper = ImageWarper(frame.camera, camera)
        images[row] = to_rgb(brightened(warper(frame.image)))
        assert record.T_map_cam is not None
        poses.append(record.T_map_cam)
        names.append(record.name)
        sequences.append(numbers.setdefault(record.sequence, len(numbers)))
        progress("reading images", row + 1, len(indices))
    return PosedImages(images, tuple(poses), np.array(sequences), tuple(names), camera)


def hold_out(count: int, fraction: float, blocks: int = 4) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to validate on: the latter in evenly spread contiguous blocks.

    Single frames held out of a video would be copies of their neighbours and measure nothing.
    """
    validation = np.zeros(count, bool)
    size = round(count * fraction / blocks)
    for block in range(blocks):
        centre = round((block + 0.5) * count / blocks)
        validation[centre - size // 2 : centre - size // 2 + size] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)


class RenderedView(NamedTuple):
    """An augmented frame.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        T_map_cam: its pose.
        inverse_depth: (h / 8, w / 8) float32, 1 / metres, zero where unknown.
    """

    image: NDArray[np.uint8]
    T_map_cam: SE3
    inverse_depth: NDArray[np.float32]


class ViewSequences(Dataset[dict[str, Tensor]]):
    """Training sequences: some frames of one recorded sequence, augmented; the same seed and number always give the
    same one.

    Item ``epoch * len + index`` ends with frame ``index``. It holds, for T frames, ``images`` (T, 3, h, w) uint8,
    ``t`` (T, 3) and ``q`` (T, 4) float32, xyzw, of ``T_map_cam``; of the last frame ``rel`` (6,) float32,
    [rotation vector, translation] of ``T_prev_cur`` (zero for T = 1), and ``inverse_depth`` (h / 8, w / 8) float32,
    1 / metres, zero where unknown.

    Args:
        data: the frames.
        length: T.
        stride: frames of a training sequence are up to this far apart, forwards or backwards in time.
        augmentation: what is done to them.
        seed: of everything drawn at random.
    """

    def __init__(
        self, data: PosedImages, length: int, stride: int, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.data, self.length, self.stride = data, length, stride
        self.augmentation, self.seed = augmentation, seed
        self._views = VirtualViews(data.images, data.poses, data.camera, data.depth)
        self._first, self._last = sequence_bounds(data.sequences)

    def __len__(self) -> int:
        """Items of one epoch."""
        return len(self.data)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, index = divmod(number, len(self))
        rng = np.random.default_rng((self.seed, epoch, index))
        bounds = int(self._first[index]), int(self._last[index])
        views = list(self.render(rows_before(index, self.length, self.stride, bounds, rng), rng))
        poses = [view.T_map_cam for view in views]
        return {
            "images": torch.from_numpy(np.stack([view.image.transpose(2, 0, 1) for view in views])),
            "t": torch.from_numpy(np.stack([T.t for T in poses]).astype(np.float32)),
            "q": torch.from_numpy(np.stack([T.quaternion_xyzw() for T in poses]).astype(np.float32)),
            "rel": torch.from_numpy(
                motion_vector(poses[max(0, self.length - 2)], poses[-1]).astype(np.float32)
            ),
            "inverse_depth": torch.from_numpy(views[-1].inverse_depth),
        }

    def render(self, rows: Iterable[int], rng: np.random.Generator) -> Iterator[RenderedView]:
        """New views of frames by one camera in one light, turned and moved alike, as in a video, and a little each on
        its own."""
        depth, camera = self.data.depth, self.data.camera
        limit = np.radians(self.augmentation.virtual_rotation_deg)
        turn = rng.uniform(-limit, limit, 3)
        reach_m = 0.0 if depth is None else self.augmentation.virtual_move * depth.median_m
        move_m = rng.uniform(-reach_m, reach_m, 3)
        appearance = random_appearance(rng, self.augmentation, camera.width_px, camera.height_px)
        for row in rows:
            own_turn, own_move_m = rng.normal(0.0, OWN_SHARE, (2, 3))
            R_refined_new = Rotation.from_euler("yxz", turn + limit * own_turn).as_matrix()
            t_refined_new = (move_m + reach_m * own_move_m) * self._views.can_move(row)
            image, T_map_cam, inverse_depth = self._views.view(row, R_refined_new, t_refined_new)
            yield RenderedView(
                appearance.applied(image, camera, T_map_cam.R, self.augmentation, rng),
                T_map_cam,
                outside_black(np.asarray(inverse_depth, np.float32), appearance.window, 8),
            )


def sequence_bounds(sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last frame of the sequence each frame belongs to, (N,) each."""
    bounds = [0, *(np.flatnonzero(np.diff(sequences)) + 1).tolist(), len(sequences)]
    lengths = np.diff(bounds)
    return np.repeat(bounds[:-1], lengths), np.repeat(np.array(bounds[1:]) - 1, lengths)


def whole_sequences(sequences: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last frame of each sequence, in order."""
    first, last = sequence_bounds(sequences)
    return sorted(set(zip(first.tolist(), last.tolist(), strict=True)))


def rows_before(
    index: int, length: int, stride: int, bounds: tuple[int, int], rng: np.random.Generator
) -> list[int]:
    """``length`` frames of one sequence that end with ``index``, in either direction of time.

    Where the sequence is too short its end stands still.

    Args:
        index: the last of them.
        length: how many.
        stride: they are up to this far apart.
        bounds: first and last frame of the sequence.
        rng: draws how far apart they are, and the direction.
    """
    first, last = bounds
    step = int(rng.integers(1, stride + 1)) * (1 if rng.random() < 0.5 else -1)
    start = index - step * (length - 1)
    if not first <= start <= last:
        step = -step
    return [int(np.clip(index - step * (length - 1 - k), first, last)) for k in range(length)]


def motion_vector(T_map_prev: SE3, T_map_cur: SE3) -> NDArray[np.float64]:
    """(6,) [rotation vector (rad), translation (m)] of ``T_prev_cur``."""
    T_prev_cur = T_map_prev.inverse() @ T_map_cur
    return np.concatenate([Rotation.from_matrix(T_prev_cur.R).as_rotvec(), T_prev_cur.t])
