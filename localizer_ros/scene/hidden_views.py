"""A map as if some of its keyframes had never been: how well a view does that nobody has had near it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from localizer_ros.core.types import Index, Mask
from localizer_ros.geometry.triangulation import ray_angles, triangulated
from localizer_ros.scene.image_index import ImageDatabase, ImageIndex
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.point_map import PointMap


def without_keyframes(scene: MapScene, hidden: Mask) -> MapScene:
    """The scene that is left of one, its points where the rays that are left say.

    Poses, intrinsics and the pose correction stay as all keyframes have made them. Images of the index that are no
    keyframes are left out.

    Args:
        scene: with a map of points.
        hidden: (I,) true for the keyframes to leave out.
    """
    number = np.where(hidden, -1, np.cumsum(~hidden) - 1)
    database = scene.database
    rows = np.nonzero((database.keyframe >= 0) & (number[database.keyframe] >= 0))[0]
    index = ImageIndex(database.index.descriptors.shape[1], database.index.kind)
    index.add(database.index.descriptors[rows])
    seen = ImageDatabase(
        index,
        database.descriptor,
        database.T_map_cam[rows],
        tuple(database.names[row] for row in rows),
        number[database.keyframe[rows]],
    )
    return replace(scene, point_map=_points_left(scene.point_map, ~hidden, number), database=seen)


def _points_left(point_map: PointMap, kept: Mask, number: Index) -> PointMap:
    """The points that at least two of the kept keyframes see at an angle."""
    count = len(point_map.points)
    stays = np.nonzero(kept[point_map.observation_image])[0]
    point = point_map.observation_point[stays]
    seen = np.bincount(point, minlength=count)
    lost = np.bincount(point_map.observation_point, minlength=count) > seen
    X = point_map.points.astype(np.float64)
    moved = np.nonzero(lost & (seen >= 2))[0]
    good = seen >= 2
    if len(moved):
        renumbered = np.full(count, -1, dtype=np.intp)
        renumbered[moved] = np.arange(len(moved))
        rows = stays[renumbered[point] >= 0]
        image = point_map.observation_image[rows].astype(np.intp)
        label = renumbered[point_map.observation_point[rows]]
        X_moved = triangulated(
            point_map.T_map_refined, image, point_map.observation_ray[rows], label, len(moved)
        )
        known = np.all(np.isfinite(X_moved), axis=1)
        X[moved[known]] = X_moved[known]
        angle = ray_angles(point_map.T_map_refined, image, np.nan_to_num(X_moved), label)
        good[moved] = known & (angle >= np.radians(point_map.settings.points.min_angle_deg))
    stays = stays[good[point]]
    point_number = np.cumsum(good) - 1
    return replace(
        point_map,
        points=X[good].astype(np.float32),
        observation_image=number[point_map.observation_image[stays]].astype(np.int32),
        observation_point=point_number[point_map.observation_point[stays]].astype(np.int32),
        observation_xy_px=point_map.observation_xy_px[stays],
        descriptors=point_map.descriptors[stays],
        T_map_refined=point_map.T_map_refined[kept],
        T_map_cam=point_map.T_map_cam[kept],
        names=tuple(name for name, keep in zip(point_map.names, kept, strict=True) if keep),
    )
