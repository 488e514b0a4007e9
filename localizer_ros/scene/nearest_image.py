"""The nearest-neighbour baseline: the pose of the mapping image that looks most alike. Stands beside every result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, Index, SceneError
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.scene.arrays import load_arrays, save_arrays
from localizer_ros.scene.bundle import INDEX_FOLDER, NETWORKS_FOLDER, Scene

DESCRIPTORS = "baseline.npz"
BASELINE_KEYPOINTS = 2000


@dataclass(frozen=True, eq=False)
class NearestNeighbour:
    """Poses of the mapping images and what finds the one that looks most alike.

    Attributes:
        poses: N ``T_map_cam``.
        names: N frame names.
        nearest: index of the mapping image that looks most like a frame.
    """

    poses: tuple[SE3, ...]
    names: tuple[str, ...]
    nearest: Callable[[Frame], int]


def save_baseline(
    folder: Path, descriptors: NDArray[np.float32], poses: tuple[SE3, ...], names: tuple[str, ...]
) -> None:
    """Write what :func:`open_baseline` reads of a scene with a network.

    Args:
        folder: of the networks of the scene.
        descriptors: (N, C) of the mapping images, by the network ``descriptor``.
        poses: N ``T_map_cam``.
        names: N frame names.
    """
    save_arrays(
        folder / DESCRIPTORS,
        # Half precision moves a cosine by 1e-4 at most and halves the file.
        descriptors=descriptors.astype(np.float16),
        poses=np.stack([T.matrix()[:3] for T in poses]),
        names=np.array(names),
    )


def read_baseline(folder: Path) -> tuple[NDArray[np.float32], tuple[SE3, ...], tuple[str, ...]]:
    """What :func:`save_baseline` has written: descriptors (N, C), N ``T_map_cam`` and N frame names.

    Args:
        folder: of the networks of the scene.

    Raises:
        SceneError: it is missing or damaged.
    """
    path = folder / DESCRIPTORS
    arrays = load_arrays(path, ("descriptors", "poses", "names"))
    try:
        poses = tuple(SE3.from_matrix(T) for T in arrays["poses"])
    except ValueError as error:
        raise SceneError(f"{path}: {error}") from error
    return arrays["descriptors"].astype(np.float32), poses, tuple(str(name) for name in arrays["names"])


def nearest_image_errors(
    descriptors: NDArray[np.float32], poses: Sequence[SE3], known: Index, asked: Index
) -> dict[str, float]:
    """How far off the poses of the images that look most alike are: ``median_t_m``, ``median_r_deg``.

    Args:
        descriptors: (N, C) of unit length.
        poses: N ``T_map_cam``.
        known: indices of the images that may be found.
        asked: indices of those that are looked for.
    """
    nearest = known[(descriptors[asked] @ descriptors[known].T).argmax(axis=1)]
    pairs = [(poses[i], poses[j]) for i, j in zip(asked, nearest, strict=True)]
    return {
        "median_t_m": float(np.median([a.distance_to(b) for a, b in pairs])),
        "median_r_deg": float(np.degrees(np.median([a.angle_to(b) for a, b in pairs]))),
    }


def open_baseline(scene: Scene, config: BackendConfig) -> NearestNeighbour | None:
    """The baseline of a scene: descriptors of its network, or of its image index; None when it has neither. Its poses
    are in the map frame.

    Raises:
        SceneError: a file of it is damaged.
        BackendError: no back end can run the descriptor network.
    """
    if (scene.path / NETWORKS_FOLDER / DESCRIPTORS).is_file():
        found = _by_network(scene.path / NETWORKS_FOLDER, config)
    elif (scene.path / INDEX_FOLDER).is_dir():
        found = _by_index(scene.path)
    else:
        return None
    return replace(found, poses=tuple(T.shifted(scene.origin_m) for T in found.poses))


def _by_network(folder: Path, config: BackendConfig) -> NearestNeighbour:
    descriptors, poses, names = read_baseline(folder)
    # In single precision, whatever the network is measured in: both are compared with the same baseline.
    precise: BackendConfig = msgspec.structs.replace(config, precision="fp32")
    backend = open_backend(folder, "descriptor", precise)
    preprocess = Preprocessor(Camera.from_dict(backend.card.camera), backend.card.mean, backend.card.std)

    def nearest(frame: Frame) -> int:
        answer = backend.run({"image": preprocess(frame.image, frame.camera)})
        return int(np.argmax(descriptors @ answer["descriptor"][0]))

    return NearestNeighbour(poses, names, nearest)


def _by_index(scene: Path) -> NearestNeighbour:
    # Late: a scene with a network needs none of the libraries of maps.
    from localizer_ros.scene.map_scene import MapScene

    opened = MapScene.open(scene)
    database = opened.database

    def nearest(frame: Frame) -> int:
        view = opened.view(frame, BASELINE_KEYPOINTS, fine=False)
        found, _ = database.index.search(opened.global_descriptor(frame, view), 1)
        return int(found[0])

    return NearestNeighbour(tuple(SE3.from_matrix(T) for T in database.T_map_cam), database.names, nearest)
