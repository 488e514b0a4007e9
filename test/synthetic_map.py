"""A map of random points seen by a row of keyframes, exact in everything."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32
from localizer_ros.features.local_features import LocalFeatures, from_bytes, to_bytes
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.scene.map_scene import View
from localizer_ros.scene.point_map import PointMap

CAMERA = Camera.pinhole(320, 240, 250.0, 250.0, 159.5, 119.5)
DIMENSIONS = 64


def pixels(T_map_cam: SE3, points: Array) -> Array:
    """(N, 2) where a camera sees (N, 3) points."""
    p = T_map_cam.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:] * 250.0 + [159.5, 119.5])


def synthetic_map(
    rng: np.random.Generator, points: int = 200, keyframes: int = 5, depth_m: float = 4.0
) -> PointMap:
    """Every keyframe sees every point; a point looks the same from everywhere."""
    size = depth_m / 4.0
    X = (rng.uniform(-1.0, 1.0, (points, 3)) + np.array([0.0, 0.0, 4.0])) * size
    poses = [SE3(np.eye(3), np.array([x * size, 0.0, 0.0])) for x in np.linspace(-0.4, 0.4, keyframes)]
    look = rng.normal(size=(points, DIMENSIONS)).astype(np.float32)
    look /= np.linalg.norm(look, axis=1, keepdims=True)
    stacked = np.stack([T.matrix() for T in poses])
    return PointMap(
        camera=RayCamera(CAMERA),
        T_cam_refined=SE3.identity(),
        points=X.astype(np.float32),
        observation_image=np.repeat(np.arange(keyframes, dtype=np.int32), points),
        observation_point=np.tile(np.arange(points, dtype=np.int32), keyframes),
        observation_xy_px=np.concatenate([pixels(T, X) for T in poses]).astype(np.float32),
        descriptors=np.tile(to_bytes(look, True), (keyframes, 1)),
        signed=True,
        T_map_refined=stacked,
        T_map_cam=stacked,
        names=tuple(f"{n}.png" for n in range(keyframes)),
        settings=StructureConfig(),
        systematic_covariance=np.zeros((6, 6)),
        statistics={"reprojection_error_px": 0.5},
    )


def view_from(point_map: PointMap, T_map_cam: SE3) -> View:
    """What a camera sees of all points, in their order."""
    xy = pixels(T_map_cam, point_map.points.astype(np.float64)).astype(np.float32)
    count = len(point_map.points)
    look: Float32 = from_bytes(point_map.descriptors[:count], True)
    features = LocalFeatures(xy, look, np.ones(count, dtype=bool))
    return View(CAMERA, features, point_map.camera.rays(CAMERA, xy))
