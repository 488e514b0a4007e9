"""Recordings to training batches: images in memory, augmentation with exact geometry, sequences of nearby frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import Dataset

from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.preprocess import ImageWarper, to_rgb
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.training.low_light import at_night, random_night
from localizer_ros.training.virtual_views import SceneDepth, VirtualViews

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class PosedImages:
    """Images as the network's camera would have seen them, with their poses.

    Attributes:
        images: (N, h, w, 3) uint8 RGB.
        poses: N ``T_map_cam``.
        sequences: (N,) int, frames of the same number belong to one continuous drive and lie in order of time.
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
        """The frames at ascending ``indices``; where some are left out between two, a new drive begins."""
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
    """Read every frame that has a pose and resample it onto ``camera``.

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
        images[row] = to_rgb(warper(frame.image))
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


# Turns and moves of each image of a sequence, as a share of the common ones.
OWN_SHARE = 0.1


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
    """Short sequences of one drive, augmented; the same seed and number always give the same one.

    Item ``epoch * len + index`` ends with frame ``index``. It holds, for T frames, ``images`` (T, 3, h, w) uint8,
    ``t`` (T, 3) and ``q`` (T, 4) float32, xyzw, of ``T_map_cam``; of the last frame ``rel`` (6,) float32,
    [rotation vector, translation] of ``T_prev_cur`` (zero for T = 1), and ``inverse_depth`` (h / 8, w / 8) float32,
    1 / metres, zero where unknown.

    Args:
        data: the frames.
        length: T.
        stride: frames of a sequence are up to this far apart, forwards or backwards in time.
        augmentation: what is done to them.
        seed: of everything drawn at random.
    """

    def __init__(
        self, data: PosedImages, length: int, stride: int, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.data, self.length, self.stride = data, length, stride
        self.augmentation, self.seed = augmentation, seed
        self._views = VirtualViews(data.images, data.poses, data.camera, data.depth)
        self._first, self._last = drive_bounds(data.sequences)

    def __len__(self) -> int:
        """Items of one epoch."""
        return len(self.data)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, index = divmod(number, len(self))
        rng = np.random.default_rng((self.seed, epoch, index))
        rows = rows_before(
            index, self.length, self.stride, int(self._first[index]), int(self._last[index]), rng
        )
        views = list(self.render(rows, rng))
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
        colour = random_colour(rng, self.augmentation.colour)
        night = random_night(rng) if rng.random() < self.augmentation.low_light else None
        window = random_window(rng, self.augmentation.crop, camera.width_px, camera.height_px)
        for row in rows:
            own_turn, own_move_m = rng.normal(0.0, OWN_SHARE, (2, 3))
            R_refined_new = Rotation.from_euler("yxz", turn + limit * own_turn).as_matrix()
            t_refined_new = (move_m + reach_m * own_move_m) * self._views.can_move(row)
            image, T_map_cam, inverse_depth = self._views.view(row, R_refined_new, t_refined_new)
            image = degrade(image, rng, self.augmentation, colour)
            if night is not None:
                image = at_night(image, camera, T_map_cam.R, night, normal_numbers(image.shape, rng))
            yield RenderedView(
                outside_black(image, window),
                T_map_cam,
                outside_black(np.asarray(inverse_depth, np.float32), window, 8),
            )


def drive_bounds(sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last frame of the drive each frame belongs to, (N,) each."""
    bounds = [0, *(np.flatnonzero(np.diff(sequences)) + 1).tolist(), len(sequences)]
    lengths = np.diff(bounds)
    return np.repeat(bounds[:-1], lengths), np.repeat(np.array(bounds[1:]) - 1, lengths)


def rows_before(
    index: int, length: int, stride: int, first: int, last: int, rng: np.random.Generator
) -> list[int]:
    """``length`` frames of the drive ``first..last`` that end with ``index``, in either direction of time.

    Where the drive is too short its end stands still.
    """
    step = int(rng.integers(1, stride + 1)) * (1 if rng.random() < 0.5 else -1)
    start = index - step * (length - 1)
    if not first <= start <= last:
        step = -step
    return [int(np.clip(index - step * (length - 1 - k), first, last)) for k in range(length)]


def motion_vector(T_map_prev: SE3, T_map_cur: SE3) -> NDArray[np.float64]:
    """(6,) [rotation vector (rad), translation (m)] of ``T_prev_cur``."""
    T_prev_cur = T_map_prev.inverse() @ T_map_cur
    return np.concatenate([Rotation.from_matrix(T_prev_cur.R).as_rotvec(), T_prev_cur.t])


def random_colour(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """(256, 3) lookup table: gain, contrast, colour cast and gamma drawn at random."""
    level = np.linspace(0.0, 1.0, 256)[:, None]
    gamma = np.exp(rng.uniform(-0.8, 0.8) * strength)
    contrast = 1.0 + rng.uniform(-0.6, 0.6) * strength
    gain = np.exp(rng.uniform(-0.5, 0.5) * strength) * np.exp(rng.uniform(-0.2, 0.2, 3) * strength)
    table = gain * ((level**gamma - 0.5) * contrast + 0.5)
    return np.asarray(np.clip(255.0 * table, 0.0, 255.0), np.uint8)


def degrade(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    augmentation: AugmentationConfig,
    colour: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Change of light, loss of colour, motion blur and sensor noise; geometry stays."""
    if augmentation.blur_px > 0.0 and rng.random() < 0.3:
        length, angle = rng.uniform(1.0, max(1.0, augmentation.blur_px)), rng.uniform(0.0, np.pi)
        size = 2 * int(np.ceil(length / 2)) + 1
        kernel = np.zeros((size, size), np.float32)
        offset = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        start, end = ((size // 2 - offset) * 16).astype(int), ((size // 2 + offset) * 16).astype(int)
        cv2.line(kernel, start.tolist(), end.tolist(), 1.0, 1, cv2.LINE_AA, 4)
        image = np.asarray(cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6)), np.uint8)
    if augmentation.colour > 0.0:
        image = np.asarray(cv2.LUT(image, colour[None]), np.uint8)
        faded = rng.uniform(0.0, augmentation.colour)
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = np.asarray(cv2.addWeighted(image, 1.0 - faded, gray, faded, 0.0), np.uint8)
    if augmentation.noise > 0.0 and rng.random() < 0.3:
        sigma = 255.0 * rng.uniform(0.0, augmentation.noise)
        noise = normal_numbers(image.shape, rng) * np.float32(sigma)
        image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)
    return image


def normal_numbers(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal numbers to read: somewhere in a table, as to draw so many takes longer than all else done to an image."""
    size = int(np.prod(shape))
    start = int(rng.integers(size))
    return _normal_table(2 * size)[start : start + size].reshape(shape)


@lru_cache(maxsize=2)
def _normal_table(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def random_window(
    rng: np.random.Generator, crop: float, width_px: int, height_px: int
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the network's image that a camera with a smaller view fills, pixels.

    A network has one camera: frames of others are resampled onto it, and what they do not see is black. So a crop that
    keeps the intrinsics right is a window that stays where it is. To enlarge it would be another focal length, which
    no frame of the network's camera has.
    """
    cut = rng.uniform(0.0, crop, 2) * (width_px, height_px)
    left, top = rng.random(2) * cut
    return (
        round(left),
        round(top),
        width_px - round(cut[0] - left),
        height_px - round(cut[1] - top),
    )


def outside_black(image: NDArray[Any], window: tuple[int, int, int, int], stride: int = 1) -> NDArray[Any]:
    """``image``, one of whose pixels is ``stride`` pixels wide, with zeros outside the window."""
    left, top, right, bottom = (round(edge / stride) for edge in window)
    if (left, top) == (0, 0) and (bottom, right) == image.shape[:2]:
        return image
    black = np.zeros_like(image)
    black[top:bottom, left:right] = image[top:bottom, left:right]
    return black
