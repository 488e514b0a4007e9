"""Local map on the fly: points triangulated among the retrieved images at query time, then 2D-3D as in full search.

For scenes of posed images without a map of points. Poses are taken as they were given; what is found is no better.
"""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.features.matchers import open_matcher
from localizer_ros.localization.map_based.hierarchical import Found, HierarchicalLocalizer
from localizer_ros.localization.map_based.local_points import LocalMaps
from localizer_ros.localization.map_based.search import StructureLocalizer
from localizer_ros.scene.map_scene import MapScene, View

_FEWEST_POINTS = 30


class LocalMapLocalizer(StructureLocalizer):
    """Implements ``GlobalLocalizer`` by a map made for each frame.

    Args:
        scene: mapping images with poses and keypoints; of its points nothing is used.
        config: thresholds.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        super().__init__(scene, config)
        self._maps = LocalMaps(scene, open_matcher(config.matcher, config.ratio, scene.matcher_card))

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None:
        """See :class:`GlobalLocalizer`."""
        c = self._config
        self.timings_ms, self.reason = {}, ""
        best: Found | None = None
        for fine in {"never": (False,), "fallback": (False, True), "always": (True,)}[c.fine_features]:
            now = time.perf_counter()
            view = self._scene.view(frame, self._scene.point_map.settings.features.max_keypoints, fine)
            self._lap("extract", now)
            found = self._search(view, prior)
            if found is not None and (best is None or found.confidence > best.confidence):
                best = found
            if best is not None and best.confidence >= c.min_confidence:
                self.reason = ""
                return self._scene.answer(frame, best.solved, "local", best.confidence)
        if best is not None:
            self.reason = (
                f"confidence {best.confidence:.2f} of {best.solved.count} inliers, "
                f"{best.visible} points expected in view"
            )
        return None

    def _search(self, view: View, prior: PoseEstimate | None) -> Found | None:
        if len(view.features) < self._config.min_inliers:
            self.reason = f"too few keypoints ({len(view.features)})"
            return None
        now = time.perf_counter()
        database = self._scene.database
        query = self._scene.global_descriptor(view)
        images, _ = self._scene.similar_keyframes(query, self._config.local_images)
        now = self._lap("retrieve", now)
        local = self._maps.around(database.keyframe[images].tolist())
        self._lap("triangulate", now)
        if len(local.points) < _FEWEST_POINTS:
            self.reason = f"{len(local.points)} points triangulated from {len(images)} retrieved images"
            return None
        # The local map is all there is: nothing to retrieve within it.
        config = msgspec.structs.replace(self._config, matcher="mutual")
        search = HierarchicalLocalizer(replace(self._scene, point_map=local), config, direct=True)
        found = search.search(view, prior)
        for name, spent in search.timings_ms.items():
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + spent
        self.reason = search.reason
        return found
