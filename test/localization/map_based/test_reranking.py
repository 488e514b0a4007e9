"""Re-ranking of retrieved keyframes by their matches."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.datasets.simulated import SimulatedSource
from localizer_ros.features.matchers import MutualMatcher
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.reranking import matched_images
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


def test_reranking_puts_the_nearest_view_first(
    posed_scenes: dict[str, Path], queries: SimulatedSource
) -> None:
    scene = MapScene.open(posed_scenes["retrieval"])
    truth = queries.records[-1].T_map_cam
    assert truth is not None
    distance = scene.point_map.view_distances(truth)
    everything = list(range(len(scene.point_map.names)))
    view = scene.view(queries.read(len(queries.records) - 1), 1000, fine=False)
    found = matched_images(scene, view, everything[::-1], MutualMatcher(0.9), SearchConfig())
    assert [len(m) for m in found] == sorted((len(m) for m in found), reverse=True)
    assert distance[found[0].image] <= np.sort(distance)[2]


def test_reranked_full_search_answers_the_same(
    posed_scenes: dict[str, Path], queries: SimulatedSource
) -> None:
    scene, frame = MapScene.open(posed_scenes["relative"]), queries.read(5)
    plain = HierarchicalLocalizer(scene, SearchConfig()).localize(frame, None).answer
    reranked = HierarchicalLocalizer(scene, SearchConfig(rerank="always")).localize(frame, None).answer
    assert plain is not None and reranked is not None
    assert plain.T_map_cam.distance_to(reranked.T_map_cam) < 0.01
