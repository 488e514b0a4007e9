"""A map of points made on the fly from a few posed images: their keypoints matched, and triangulated by their poses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from localizer_ros.core.types import Array, Index
from localizer_ros.features.matchers import Matcher
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.point_map import PointMap

# Poses are as they were given: their error moves a match off its epipolar line, and a point off its rays.
_EPIPOLAR_PX = 8.0
_REPROJECTION_PX = 6.0
_MIN_ANGLE_RAD = np.radians(1.5)
_MAX_ANGLE_RAD = np.radians(45.0)
# Images with a shorter baseline (share of the depth) give no depth.
_SHORTEST_BASELINE = 0.02
# What is kept for the next frames: they mostly need the same.
_PAIRS_KEPT, _MAPS_KEPT = 4000, 16


class LocalMaps:
    """Local maps around images of a scene; pairs and maps of the last frames are kept.

    Args:
        scene: mapping images with poses and keypoints; of its points nothing is used.
        matcher: of keypoints.
    """

    def __init__(self, scene: MapScene, matcher: Matcher) -> None:
        self._scene, self._matcher = scene, matcher
        self._pairs: OrderedDict[tuple[int, int], Index] = OrderedDict()
        self._maps: OrderedDict[tuple[int, ...], PointMap] = OrderedDict()

    def around(self, images: Iterable[int]) -> PointMap:
        """The points that these images see, as a map of them alone; perhaps without a point.

        Args:
            images: numbers in the scene's map.
        """
        key = tuple(sorted(set(images)))
        if key not in self._maps:
            self._maps[key] = self._triangulated(key)
            if len(self._maps) > _MAPS_KEPT:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]

    def _triangulated(self, images: tuple[int, ...]) -> PointMap:
        point_map = self._scene.point_map
        start = point_map.image_start
        T = point_map.T_map_refined[list(images)]
        pairs = [
            (a, b, self._matches(images[a], images[b]))
            for a in range(len(images))
            for b in range(a + 1, len(images))
            if self._stereo(T[a], T[b])
        ]
        image, keypoint, track = tracks_of(pairs, [int(start[i + 1] - start[i]) for i in images])
        stored = start[list(images)][image] + keypoint
        kept, point, X = consistent(
            T,
            image,
            point_map.observation_ray[stored],
            track,
            _REPROJECTION_PX / self._scene.focal_px,
            _MIN_ANGLE_RAD,
        )
        order = kept[np.argsort(image[kept], kind="stable")]
        point = point[np.argsort(image[kept], kind="stable")]
        return replace(
            point_map,
            points=X.astype(np.float32),
            observation_image=image[order].astype(np.int32),
            observation_point=point.astype(np.int32),
            observation_xy_px=point_map.observation_xy_px[stored[order]],
            descriptors=point_map.descriptors[stored[order]],
            T_map_refined=T,
            T_map_cam=point_map.T_map_cam[list(images)],
            names=tuple(point_map.names[i] for i in images),
        )

    def _matches(self, a: int, b: int) -> Index:
        """Matches of two images on each other's epipolar lines."""
        if (a, b) not in self._pairs:
            scene = self._scene
            pairs = self._matcher.match(scene.keyframe_side(a), scene.keyframe_side(b))
            T = scene.point_map.T_map_refined
            distance = epipolar_distances(
                np.linalg.inv(T[b]) @ T[a],
                scene.keyframe_rays(a)[pairs[:, 0]],
                scene.keyframe_rays(b)[pairs[:, 1]],
            )
            self._pairs[a, b] = pairs[distance < _EPIPOLAR_PX / scene.focal_px]
            if len(self._pairs) > _PAIRS_KEPT:
                self._pairs.popitem(last=False)
        self._pairs.move_to_end((a, b))
        return self._pairs[a, b]

    def _stereo(self, T_map_a: Array, T_map_b: Array) -> bool:
        """Whether two views overlap and lie apart."""
        cosine = 0.5 * (float(np.sum(T_map_a[:3, :3] * T_map_b[:3, :3])) - 1.0)
        apart = float(np.linalg.norm(T_map_a[:3, 3] - T_map_b[:3, 3]))
        shortest = _SHORTEST_BASELINE * self._scene.point_map.median_depth
        return cosine > np.cos(_MAX_ANGLE_RAD) and apart > shortest


def epipolar_distances(T_b_a: Array, rays_a: Array, rays_b: Array) -> Array:
    """(N,) root mean square distance of two matched rays from each other's epipolar lines, plane z = 1.

    Args:
        T_b_a: (4, 4) pose of a in b.
        rays_a, rays_b: (N, 2).
    """
    t = T_b_a[:3, 3]
    E = np.array([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]]) @ T_b_a[:3, :3]
    one = np.ones((len(rays_a), 1))
    a, b = np.concatenate([rays_a, one], axis=1), np.concatenate([rays_b, one], axis=1)
    line_b, line_a = a @ E.T, b @ E
    size = np.sqrt(0.5 * (line_a[:, :2] ** 2 + line_b[:, :2] ** 2).sum(axis=1)) + 1e-12
    return np.asarray(np.abs(np.einsum("ni,ni->n", b, line_b)) / size)
