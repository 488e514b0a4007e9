"""Places: groups of keyframes that a frame may show, and the matches of the frame with their points.

Retrieved keyframes are split into places, the connected components of covisibility, since the image of one place must
not be matched with the points of two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.types import ConfigError, Float32, Frame, Index
from localizer_ros.features.descriptor_matching import point_matches
from localizer_ros.features.matchers import open_matcher
from localizer_ros.localization.map_based.reranking import matched_images
from localizer_ros.scene.map_scene import MapScene, View

# Points in common that make two keyframes see the same place.
_COVISIBLE_POINTS = 12
# A place with this share of the images of the first one may be what the image shows even where that explains it: two
# rooms that are furnished alike share the retrieved images. So many times as many images are looked at for such places.
_RIVAL_SHARE, _LOOKED_AT_FOR_RIVALS = 0.5, 2
# A place is first tried with half of its images, the most similar ones, one descriptor of each point, and half of the
# keypoints, the strongest ones, where there are many: a tenth to a sixth of the comparisons. Verification looks for all
# of them. Of Red Kitchen by day and in three low lights that (with all keypoints) was enough for four of five places,
# of TUM fr1_rpy and a simulated room for all but three of 159, and as many frames had an answer as with all at once
# (230 of 240, 229 before; 155 of 155). Half of the keypoints changed neither: 184 of 200 of Red Kitchen by day and at
# 3 % of its light, 183 with all, and 145 of 145 of TUM fr1_rpy, the room and KITTI 00; a third made the largest errors
# a tenth larger. Where the first try is not enough, all images count, with a few descriptors of each point; more add
# little.
_LARGE_PLACE = 4
_QUICK_VIEWS, _VIEWS_OF_A_POINT = 1, 3
_FEW_KEYPOINTS = 300


def is_rival(place: Index | None, first: Index | None) -> bool:
    """Whether a place looks so much like the image that it is tried even where the first one explains it."""
    return place is not None and first is not None and len(place) >= _RIVAL_SHARE * len(first)


class Places:
    """Retrieval of places, and matching with their points.

    Args:
        scene: map and index.
        config: how many images, and how matched.
        whole: the map is one place, without retrieval; for small maps.

    Raises:
        ConfigError: a matcher of images with ``whole``, or one that the scene does not hold.
    """

    def __init__(self, scene: MapScene, config: SearchConfig, whole: bool = False) -> None:
        self._scene, self._config, self._whole = scene, config, whole
        if whole and config.matcher != "mutual":
            raise ConfigError(
                f"search.matcher: {config.matcher} matches images; method direct has none to match with"
            )
        self._matcher = open_matcher(config.matcher, config.ratio, scene.matcher_card)

    def retrieve(self, frame: Frame, view: View) -> list[Index | None]:
        """The places that a frame may show, that with the most retrieved images first; None stands for the whole map.

        Args:
            frame: the image.
            view: its features.
        """
        if self._whole:
            return [None]
        c, scene = self._config, self._scene
        query = scene.global_descriptor(frame, view)
        if c.rerank == "always":
            found, _ = scene.similar_keyframes(query, max(c.neighbours, c.rerank_images))
            alike = matched_images(scene, view, scene.database.keyframe[found].tolist(), self._matcher, c)
            images = np.array([matched.image for matched in alike[: c.neighbours]], dtype=np.intp)
        else:
            found, _ = scene.similar_keyframes(query, c.neighbours)
            images = scene.database.keyframe[found].astype(np.intp)
        if len(images) == 0:
            return []
        places = self._connected(images)
        further, _ = scene.similar_keyframes(query, _LOOKED_AT_FOR_RIVALS * c.neighbours)
        return [*places, *self._rivals(places, scene.database.keyframe[further].astype(np.intp))]

    def _connected(self, images: Index) -> list[Index]:
        """The places that some keyframes show, that with the most of them first."""
        linked = self._shared(images)[:, images] >= _COVISIBLE_POINTS
        _, label = connected_components(linked, directed=False)
        groups = [images[label == value] for value in dict.fromkeys(label.tolist())]
        return sorted(groups, key=len, reverse=True)

    def _shared(self, images: Index) -> NDArray[np.int32]:
        """(K, I) how many points some keyframes share with all of them."""
        return np.asarray(self._scene.point_map.covisibility[images].toarray(), np.int32)

    def _rivals(self, places: list[Index], images: Index) -> list[Index]:
        """Places of further keyframes that share no points with the first place, and are as many as make it doubtful:
        of two rooms that are furnished alike, one may fill all of the retrieved images."""
        shared = self._shared(images)[:, places[0]].max(axis=1)
        elsewhere = images[(shared < _COVISIBLE_POINTS) & ~np.isin(images, np.concatenate(places))]
        return [place for place in self._connected(elsewhere) if is_rival(place, places[0])]

    def attempts(self, view: View, place: Index | None) -> Iterator[tuple[Index, Index]]:
        """(K,) keypoints of a view and (K,) the points of a place that they seem to show: first what is quickly found,
        where that differs from what is found in all images.

        Args:
            view: of a frame.
            place: keyframes, the most similar first; None = the whole map.
        """
        point_map = self._scene.point_map
        if place is None:
            point_of = np.arange(len(point_map.points), dtype=np.int32)
            yield point_matches(
                view.features.descriptors, point_map.mean_descriptors, point_of, self._config.ratio
            )
        elif self._config.matcher != "mutual":
            yield self._match_images(view, place)
        else:
            if len(place) >= _LARGE_PLACE:
                strongest = view.features.descriptors[: max(len(view.features) // 2, _FEW_KEYPOINTS)]
                yield self._match_points(strongest, place[: (len(place) + 1) // 2], _QUICK_VIEWS)
            yield self._match_points(view.features.descriptors, place, _VIEWS_OF_A_POINT)

    def _match_points(self, descriptors: Float32, images: Index, views: int) -> tuple[Index, Index]:
        """(K,) indices of descriptors and (K,) the points that they seem to be of, by at most so many descriptors of
        each point that the images show, the most similar ones'."""
        point_map = self._scene.point_map
        observations = self._few_views(point_map.observations_of(images), views)
        return point_matches(
            descriptors,
            point_map.unit_descriptors(observations),
            point_map.observation_point[observations],
            self._config.ratio,
        )

    def _match_images(self, view: View, place: Index) -> tuple[Index, Index]:
        """The same by the matcher, image by image; what several images say is said once."""
        point_map, query = self._scene.point_map, view.side
        pairs = [np.zeros((0, 2), dtype=np.intp)]
        for image in place:
            matched = self._matcher.match(query, self._scene.keyframe_side(int(image)))
            point = point_map.observation_point[point_map.image_start[image] + matched[:, 1]]
            pairs.append(np.stack([matched[:, 0], point], axis=1).astype(np.intp))
        keypoint, point = np.unique(np.concatenate(pairs), axis=0).T
        return keypoint, point

    def _few_views(self, observations: Index, views: int) -> Index:
        """At most so many observations of each point, the first ones."""
        point = self._scene.point_map.observation_point[observations]
        order = np.argsort(point, kind="stable")
        ordered = point[order]
        run_start = np.searchsorted(ordered, ordered, side="left")
        return np.asarray(observations[np.sort(order[np.arange(len(order)) - run_start < views])])
