"""The nearest-neighbour baseline: the pose of the mapping image that looks most alike. Stands beside every result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config import BackendConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, SceneError
from localizer_ros.inference.backend import Backend, open_backend

DESCRIPTORS = "baseline.npz"


@dataclass(frozen=True, eq=False)
class NearestNeighbour:
    """Descriptors of the mapping images and what computes the same of a query.

    Attributes:
        descriptors: (N, D) float32, unit length.
        poses: N ``T_map_cam``.
        names: N frame names.
    """

    descriptors: NDArray[np.float32]
    poses: tuple[SE3, ...]
    names: tuple[str, ...]
    _backend: Backend
    _preprocess: Preprocessor

    def descriptor(self, frame: Frame) -> NDArray[np.float32]:
        """(D,) float32 of unit length."""
        image = self._preprocess(frame.image, frame.camera)
        return np.asarray(self._backend.run({"image": image})["descriptor"][0])

    def nearest(self, frame: Frame) -> int:
        """Index of the mapping image that looks most alike."""
        return int(np.argmax(self.descriptors @ self.descriptor(frame)))

    def close(self) -> None:
        """Release the engine."""
        self._backend.close()


def save_baseline(
    folder: Path, descriptors: NDArray[np.float32], poses: tuple[SE3, ...], names: tuple[str, ...]
) -> None:
    """Write the mapping images' part to ``folder``."""
    np.savez(
        folder / DESCRIPTORS,
        # Half precision moves a cosine by 1e-4 at most and halves the file.
        descriptors=descriptors.astype(np.float16),
        poses=np.stack([T.matrix()[:3] for T in poses]),
        names=np.array(names),
    )


def open_baseline(scene: Path, config: BackendConfig) -> NearestNeighbour | None:
    """The baseline of a scene; None when it has none. Raises SceneError when it is damaged."""
    path = scene / "networks" / DESCRIPTORS
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            descriptors = data["descriptors"].astype(np.float32)
            poses = tuple(SE3.from_matrix(T) for T in data["poses"])
            names = tuple(str(name) for name in data["names"])
    except (OSError, KeyError, ValueError) as error:
        raise SceneError(f"{path}: cannot be read ({error})") from error
    backend = open_backend(scene / "networks", "descriptor", config)
    card = backend.card
    preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
    return NearestNeighbour(descriptors, poses, names, backend, preprocess)
