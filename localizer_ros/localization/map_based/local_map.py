"""Local maps on the fly: points triangulated among the retrieved images at query time, then 2D-3D as in full search.

For scenes of posed images without a map of points. Poses are taken as they were given; what is found is no better.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, Index, PoseEstimate
from localizer_ros.features.matchers import Matcher, open_matcher
from localizer_ros.geometry.epipolar import epipolar_distances, essential_matrix
from localizer_ros.geometry.triangulation import consistent, tracks_of
from localizer_ros.localization.map_based.hierarchical import PlaceSearch
from localizer_ros.localization.map_based.search import SearchResult, ViewResult, search_in_passes
from localizer_ros.scene.map_scene import MapScene, View
from localizer_ros.scene.point_map import PointMap

# A map of fewer points is none.
_FEWEST_POINTS = 30
# Poses are as they were given: their error moves a match off its epipolar line, and a point off its rays.
_EPIPOLAR_PX = 8.0
_REPROJECTION_PX = 6.0
# Rays that meet at less give no depth; images that are turned by more show other things.
_MIN_ANGLE_RAD = np.radians(1.5)
_MAX_ANGLE_RAD = np.radians(45.0)
# Images with a shorter baseline (share of the depth) give no depth.
_SHORTEST_BASELINE = 0.02
# What is kept for the next frames: they mostly need the same.
_PAIRS_KEPT, _MAPS_KEPT = 4000, 16


class LocalMapLocalizer:
    """Implements ``GlobalLocalizer`` by a map made for each frame.

    Args:
        scene: keyframes with poses and keypoints; of its points nothing is used.
        config: thresholds.

    Raises:
        ConfigError: a matcher that the scene does not hold.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        self._scene, self._config = scene, config
        self._maps = LocalMaps(scene, open_matcher(config.matcher, config.ratio, scene.matcher_card))

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        """See :class:`GlobalLocalizer`."""
        return search_in_passes(self, self._scene, self._config, "local", frame, prior)

    def search(self, frame: Frame, view: View, prior: PoseEstimate | None, timer: StageTimer) -> ViewResult:
        """See :class:`ViewSearch`."""
        if len(view.features) < self._config.min_inliers:
            return ViewResult(None, f"too few keypoints ({len(view.features)})")
        query = self._scene.global_descriptor(frame, view)
        images, _ = self._scene.similar_keyframes(query, self._config.local_images)
        timer.lap("retrieve")
        local = self._maps.around(self._scene.database.keyframe[images].tolist())
        timer.lap("triangulate")
        if len(local.points) < _FEWEST_POINTS:
            return ViewResult(
                None, f"{len(local.points)} points triangulated from {len(images)} retrieved images"
            )
        # The local map is all there is: nothing to retrieve within it.
        config = msgspec.structs.replace(self._config, matcher="mutual")
        search = PlaceSearch(replace(self._scene, point_map=local), config, whole=True)
        return search.search(frame, view, prior, timer)


class LocalMaps:
    """Local maps around images of a scene; pairs and maps of the last frames are kept.

    Args:
        scene: keyframes with poses and keypoints; of its points nothing is used.
        matcher: of keypoints.
    """

    def __init__(self, scene: MapScene, matcher: Matcher) -> None:
        self._scene, self._matcher = scene, matcher
        self._pairs: OrderedDict[tuple[int, int], Index] = OrderedDict()
        self._maps: OrderedDict[tuple[int, ...], PointMap] = OrderedDict()

    def around(self, images: Iterable[int]) -> PointMap:
        """The points that these images see, as a map of them alone; perhaps without a point.

        Args:
            images: numbers of keyframes.
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
                essential_matrix(np.linalg.inv(T[b]) @ T[a]),
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
