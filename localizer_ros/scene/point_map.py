"""The map of points as it is used online: points, their descriptors as keyframes saw them, and the keyframes.

``map/point_map.npz`` holds arrays only (no pickle), ``map/point_map.yaml`` the camera and the settings that the online
part must share with the mapping.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import yaml
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.schema import config_from_dict, config_to_dict, without_unknown
from localizer_ros.core.files import read_yaml
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, ConfigError, Float32, Index, SceneError, UInt8
from localizer_ros.features.local_features import floats, from_bytes, lengths
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.geometry.view_distance import view_distances
from localizer_ros.scene.arrays import Arrays, full_poses, load_arrays, save_arrays
from localizer_ros.scene.bundle import check_format

logger = logging.getLogger(__name__)

ARRAYS = "point_map.npz"
SETTINGS = "point_map.yaml"
FORMAT = 1

_STORED = (
    "points",
    "observation_image",
    "observation_point",
    "observation_xy",
    "descriptors",
    "T_map_refined",
    "T_map_cam",
    "names",
    "T_cam_refined",
    "systematic_covariance",
)
# Keypoints are stored as 16-bit fixed point with 1/16 px: below the noise of any detector.
_SUBPIXELS = 16.0
# Of descriptors that are floats at one time: 2 MB.
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class PointMap:
    """Points, observations and keyframes.

    A map of posed images alone has no points: their keypoints are kept as observations of none.

    Two frames of the camera: ``refined``, in which rays and points agree (after bundle adjustment), and ``cam``,
    whose poses were given. They differ by the extrinsics ``T_cam_refined``, and by the pose correction where
    poses were given with an error that varies over the scene.

    Attributes:
        camera: of the keyframes, from pixels to rays.
        T_cam_refined: refined camera in the frame of the given poses.
        points: (P, 3) float32 positions in the map, metres.
        observation_image: (N,) int32 keyframe of each observation, ascending.
        observation_point: (N,) int32 its point; -1 for a keypoint without one.
        observation_xy_px: (N, 2) float32 its keypoint, distorted pixels.
        descriptors: (N, D) uint8, see ``features.local_features.to_bytes``.
        signed: whether descriptors have negative components.
        T_map_refined: (I, 4, 4) refined poses of the keyframes.
        T_map_cam: (I, 4, 4) given poses of the keyframes.
        names: I frame names of the keyframes.
        settings: what the map was built with.
        systematic_covariance: (6, 6) of answers against the given poses beyond the noise of keypoints.
        statistics: figures for ``localizer info``.
    """

    camera: RayCamera
    T_cam_refined: SE3
    points: Float32
    observation_image: NDArray[np.int32]
    observation_point: NDArray[np.int32]
    observation_xy_px: Float32
    descriptors: UInt8
    signed: bool
    T_map_refined: Array
    T_map_cam: Array
    names: tuple[str, ...]
    settings: StructureConfig
    systematic_covariance: Array
    statistics: dict[str, Any]

    def unit_descriptors(self, observations: Index | slice) -> Float32:
        """(M, D) float32 of unit length, of some observations.

        Made of the stored bytes each time: all of them as floats would be the largest part of an open map, four times
        as large as the bytes, and to read a byte takes no longer than to read a float.
        """
        values = floats(self.descriptors[observations], self.signed)
        values /= self._length[observations, None]
        return values

    @cached_property
    def _length(self) -> Float32:
        """(N,) of the stored descriptors."""
        pieces = range(0, len(self.descriptors), _ROWS_AT_ONCE)
        found = [lengths(floats(self.descriptors[i : i + _ROWS_AT_ONCE], self.signed)) for i in pieces]
        return np.concatenate([np.zeros(0, np.float32), *found])

    @cached_property
    def observation_ray(self) -> Array:
        """(N, 2) rays of the observed keypoints, plane z = 1."""
        return self.camera.rays(self.camera.given, self.observation_xy_px)

    @cached_property
    def image_start(self) -> Index:
        """(I + 1,) observations of keyframe i are ``image_start[i]:image_start[i + 1]``."""
        return np.searchsorted(self.observation_image, np.arange(len(self.names) + 1))

    @cached_property
    def covisibility(self) -> scipy.sparse.csr_array:
        """(I, I) sparse: number of points that two keyframes share."""
        ones = np.ones(len(self.observation_point), dtype=np.int32)
        seen = scipy.sparse.csr_array(
            (ones, (self.observation_image, self.observation_point)),
            shape=(len(self.names), len(self.points)),
        )
        return scipy.sparse.csr_array(seen @ seen.T)

    @cached_property
    def mean_descriptors(self) -> Float32:
        """(P, D) float32 unit mean of each point's descriptors, for matching against the whole map."""
        means = np.zeros((len(self.points), self.descriptors.shape[1]), dtype=np.float32)
        np.add.at(means, self.observation_point, from_bytes(self.descriptors, self.signed))
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
        return means

    @cached_property
    def median_depth(self) -> float:
        """Median depth of observed points, metres; of those that mapping looked at where none are kept."""
        if len(self.points) == 0:
            return float(self.statistics.get("median_depth_m", 1.0))
        T = self.T_map_refined[self.observation_image]
        depth = np.einsum("ni,ni->n", T[:, :3, 2], self.points[self.observation_point] - T[:, :3, 3])
        return float(np.median(depth))

    def prepare(self) -> None:
        """Work out now, of a map with points, what the first frame would otherwise wait for."""
        for name in ("_length", "image_start", "covisibility", "median_depth"):
            getattr(self, name)

    def observations_of(self, keyframes: Index) -> Index:
        """(M,) indices of all observations made by some keyframes, keyframe by keyframe."""
        start = self.image_start
        return np.concatenate(
            [np.zeros(0, dtype=np.intp), *(np.arange(start[i], start[i + 1]) for i in keyframes)]
        )

    def view_distances(self, T_map_refined: SE3) -> Array:
        """(I,) how differently the keyframes look at the scene than a camera at the pose, radians."""
        return view_distances(self.T_map_refined, T_map_refined, self.median_depth)

    def save(self, folder: Path) -> int:
        """Bytes written to a folder, which is made where it is missing."""
        stored_xy = np.clip(np.rint((self.observation_xy_px + 1.0) * _SUBPIXELS), 0, 65535)
        written = save_arrays(
            folder / ARRAYS,
            points=self.points.astype(np.float32),
            observation_image=self.observation_image.astype(np.int32),
            observation_point=self.observation_point.astype(np.int32),
            observation_xy=stored_xy.astype(np.uint16),
            descriptors=self.descriptors,
            T_map_refined=self.T_map_refined[:, :3],
            T_map_cam=self.T_map_cam[:, :3],
            names=np.array(self.names, dtype=np.str_),
            T_cam_refined=self.T_cam_refined.matrix(),
            systematic_covariance=self.systematic_covariance,
        )
        values = {
            "format": FORMAT,
            "signed": self.signed,
            "camera": self.camera.to_dict(),
            "settings": config_to_dict(self.settings),
            "statistics": self.statistics,
        }
        path = folder / SETTINGS
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return written + path.stat().st_size

    @staticmethod
    def load(folder: Path) -> PointMap:
        """What :meth:`save` has written.

        Raises:
            SceneError: a file is missing or damaged, or of another format; the message names it.
        """
        settings_path, arrays_path = folder / SETTINGS, folder / ARRAYS
        values = read_yaml(settings_path, SceneError)
        check_format(settings_path, values, "format", FORMAT)
        arrays = load_arrays(arrays_path, _STORED)
        fault = _fault(arrays)
        if fault:
            raise SceneError(f"{arrays_path}: {fault}")
        try:
            return PointMap(
                camera=RayCamera.from_dict(values["camera"]),
                T_cam_refined=SE3.from_matrix(arrays["T_cam_refined"]),
                points=arrays["points"],
                observation_image=arrays["observation_image"],
                observation_point=arrays["observation_point"],
                observation_xy_px=arrays["observation_xy"].astype(np.float32) / np.float32(_SUBPIXELS) - 1.0,
                descriptors=arrays["descriptors"],
                signed=bool(values["signed"]),
                T_map_refined=full_poses(arrays["T_map_refined"]),
                T_map_cam=full_poses(arrays["T_map_cam"]),
                names=tuple(str(name) for name in arrays["names"]),
                settings=_settings(settings_path, values["settings"]),
                systematic_covariance=arrays["systematic_covariance"],
                statistics=dict(values["statistics"]),
            )
        except ConfigError as error:
            # Of a camera, which knows no file.
            where = "" if str(settings_path) in str(error) else f"{settings_path}: "
            raise SceneError(f"{where}{error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SceneError(f"{settings_path}: does not fit its arrays ({error})") from error


def _fault(arrays: Arrays) -> str:
    """What is wrong with the stored arrays of a map; empty when nothing is."""
    n, images, points = (len(arrays[name]) for name in ("observation_image", "names", "points"))
    shapes = {
        "points": (points, 3),
        "observation_image": (n,),
        "observation_point": (n,),
        "observation_xy": (n, 2),
        "T_map_refined": (images, 3, 4),
        "T_map_cam": (images, 3, 4),
        "T_cam_refined": (4, 4),
        "systematic_covariance": (6, 6),
    }
    if any(arrays[name].shape != shape for name, shape in shapes.items()):
        return "array shapes do not fit together"
    if arrays["descriptors"].ndim != 2 or len(arrays["descriptors"]) != n:
        return "array shapes do not fit together"
    image, point = arrays["observation_image"], arrays["observation_point"]
    if n and (
        np.any(np.diff(image) < 0)
        or not 0 <= image[0] <= image[-1] < images
        or not -1 <= point.min() <= point.max() < points
    ):
        return "an observation names an image or a point that is not there"
    return ""


def _settings(path: Path, values: Any) -> StructureConfig:
    """Settings of a map, without those that only the version that made it had."""
    known, unknown = without_unknown(StructureConfig, values)
    if unknown:
        logger.warning(
            "%s: made by another version of localizer_ros with settings that this one does not have, ignored: %s",
            path,
            ", ".join(unknown),
        )
    return config_from_dict(StructureConfig, known, str(path))
