"""Masks: which pixels of an image keypoints may come from.

A mask is an image file; where all of its channels are 0 the frame is ignored. Moving things are masked frame by frame
in a recording that is mapped; what a camera sees of its own robot is masked once, for the map and for live frames.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from localizer_ros.core.config.mapping import MaskConfig
from localizer_ros.core.types import Camera, ConfigError, FrameRejected, Mask, SceneError
from localizer_ros.datasets.images import decode_compressed
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import LocalFeatures

MASK_FOLDER = "masks"
STATIC_MASK = "map/static_mask.png"
# A keypoint describes the pixels around it: what is ignored grows by this share of the image's width.
_MARGIN = 0.01


def read_mask(path: Path) -> Mask:
    """(H, W) bool, true where keypoints may lie; a mask of any size fits an image of the same shape.

    Raises:
        ConfigError: not an image that can be read, or everything is ignored.
    """
    try:
        pixels = decode_compressed(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"mask {path}: cannot be read ({error.strerror})") from error
    except FrameRejected as error:
        raise ConfigError(f"mask {path}: {error}") from error
    used = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0
    if not used.any():
        raise ConfigError(f"mask {path}: ignores everything; 0 is ignored, any other value used")
    margin = max(1, round(_MARGIN * used.shape[1]))
    # Outside the image nothing is ignored.
    grown = cv2.dilate((~used).astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8))
    return np.asarray(grown == 0)


def unmasked(features: LocalFeatures, camera: Camera, mask: Mask | None) -> LocalFeatures:
    """The features that a mask leaves; all of them without one."""
    if mask is None or len(features) == 0:
        return features
    scale = np.array([mask.shape[1] / camera.width_px, mask.shape[0] / camera.height_px])
    column, row = ((features.xy_px + 0.5) * scale).astype(np.intp).T
    inside = mask[np.clip(row, 0, mask.shape[0] - 1), np.clip(column, 0, mask.shape[1] - 1)]
    return features.only(inside)


def open_static_mask(scene_dir: Path) -> Mask | None:
    """The static mask of a scene, None when it has none. Raises SceneError when it is damaged."""
    path = scene_dir / STATIC_MASK
    if not path.is_file():
        return None
    try:
        return read_mask(path)
    except ConfigError as error:
        raise SceneError(str(error)) from error


class RecordingMasks:
    """The masks of a recording's frames.

    The mask of frame ``NAME`` is ``FOLDER/NAME.png``, or that with the ending of NAME left out; a frame without one is
    used whole.

    Args:
        source: the recording.
        config: where they are; the static mask applies to every frame.

    Raises:
        ConfigError: a folder or file named in the config is not there, or the folder has no mask of any frame.
    """

    def __init__(self, source: FrameSource, config: MaskConfig) -> None:
        self._static = read_mask(Path(config.static)) if config.static else None
        folder = Path(config.folder) if config.folder else source.path / MASK_FOLDER
        self._files: dict[str, Path] = {}
        if folder.is_dir():
            for record in source.records:
                name = Path(record.name)
                for candidate in (folder / f"{name}.png", folder / name.with_suffix(".png")):
                    if candidate.is_file():
                        self._files[record.name] = candidate
                        break
        if not self._files and (config.folder or folder.is_dir()):
            what = "has no mask of any frame" if folder.is_dir() else "no such folder"
            raise ConfigError(
                f"structure.masks.folder: {folder}: {what}; expected e.g. {folder / (source.records[0].name + '.png')}"
            )

    def __len__(self) -> int:
        return len(self._files)

    def apply(self, features: LocalFeatures, name: str, camera: Camera) -> LocalFeatures:
        """The features of a frame that its mask and the static one leave."""
        features = unmasked(features, camera, self._static)
        return unmasked(features, camera, read_mask(self._files[name])) if name in self._files else features
