"""Features of a recording's frames, extracted once and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import Camera, Float32
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.extractors import open_extractor
from localizer_ros.features.local_features import LocalFeatures, from_bytes, to_bytes
from localizer_ros.features.masks import RecordingMasks
from localizer_ros.features.matchers import Side
from localizer_ros.geometry.rays import distorted, undistorted
from localizer_ros.mapping.bundled_models import check_networks

# A keypoint that comes back further from where it was has no place in the other camera's image.
_SAME_PLACE_PX = 0.5
_OTHER_CAMERAS = "other_cameras"


class FeatureStore:
    """Features of a recording's frames, extracted once and kept in a folder.

    All keypoints are those of one camera, the recording's (``FrameSource.camera``): those of frames that another one
    took are where that camera would have seen them.

    Args:
        source: the recording.
        config: which features.
        folder: where they are kept.
    """

    def __init__(self, source: FrameSource, config: StructureConfig, folder: Path) -> None:
        self._source, self._config, self._folder = source, config, folder
        self._extractor = open_extractor(config.features)
        check_networks(config, self._extractor.dimensions)
        self._masks = RecordingMasks(source, config.masks)
        self.signed = self._extractor.signed
        self._kept: dict[tuple[int, bool], tuple[Float32, NDArray[np.uint8], NDArray[np.bool_]]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def extract(self, indices: list[int], fine: bool, progress: Progress, stage: str) -> None:
        """Make sure that the features of these frames are there; reading and extraction overlap."""
        missing = [i for i in indices if not self._path(i, fine).is_file()]
        done = len(indices) - len(missing)
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = [reader.submit(self._source.read, i) for i in missing[:2]]
            for n, i in enumerate(missing):
                frame = pending.pop(0).result()
                if n + 2 < len(missing):
                    pending.append(reader.submit(self._source.read, missing[n + 2]))
                features = self._extractor.extract(frame.image, self._config.features.max_keypoints, fine)
                features = self._masks.apply(features, self._source.records[i].name, frame.camera)
                if not frame.camera.same_as(self._source.camera):
                    (self._folder / _OTHER_CAMERAS).touch()
                    features = seen_by(self._source.camera, frame.camera, features)
                self._write(i, fine, features)
                progress(stage, done + n + 1, len(indices))

    @property
    def several_cameras(self) -> bool:
        """Whether frames that were extracted come from different cameras."""
        return (self._folder / _OTHER_CAMERAS).is_file()

    def features(self, index: int, fine: bool) -> LocalFeatures:
        """Features of a frame that was extracted before."""
        if (index, fine) not in self._kept:
            with np.load(self._path(index, fine), allow_pickle=False) as data:
                self._kept[index, fine] = (data["xy"], data["descriptors"], data["coarse"])
        xy, descriptors, coarse = self._kept[index, fine]
        return LocalFeatures(xy, from_bytes(descriptors, self.signed), coarse)

    def side(self, index: int) -> Side:
        """Fine features of a frame for a matcher."""
        features, camera = self.features(index, True), self._source.camera
        return Side(features.xy_px, features.descriptors, (camera.width_px, camera.height_px))

    def _path(self, index: int, fine: bool) -> Path:
        return self._folder / f"{index:06d}-{'fine' if fine else 'coarse'}.npz"

    def _write(self, index: int, fine: bool, features: LocalFeatures) -> None:
        path = self._path(index, fine)
        # Renamed when complete: a killed run leaves no half file to trip over.
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            xy=features.xy_px,
            descriptors=to_bytes(features.descriptors, self.signed),
            coarse=features.coarse,
        )
        partial.replace(path)


def seen_by(camera: Camera, other: Camera, features: LocalFeatures) -> LocalFeatures:
    """Features of an image by another camera, where a camera at the same place would have them; without those that it
    cannot have."""
    rays = undistorted(other, features.xy_px)
    xy_px = distorted(camera, rays)
    with np.errstate(invalid="ignore"):
        again_px = np.linalg.norm((undistorted(camera, xy_px) - rays) * camera.K[[0, 1], [0, 1]], axis=1)
        known = np.isfinite(xy_px).all(axis=1) & (again_px < _SAME_PLACE_PX)
    moved = LocalFeatures(xy_px.astype(np.float32), features.descriptors, features.coarse)
    return moved.only(known)
