"""Full search in a map of a real recording."""

from pathlib import Path

import numpy as np
import pytest
from kitchen import Kitchen

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.source import open_source
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("direct", [False, True])
def test_full_search_finds_frames_between_the_mapped_ones(kitchen: Kitchen, direct: bool) -> None:
    localizer = HierarchicalLocalizer(MapScene.open(kitchen.scene), SearchConfig(), direct)
    found = []
    for index in range(0, 20, 5):
        result = localizer.localize(kitchen.queries.read(index), None)
        answer = result.answer
        assert answer is not None, result.reason
        assert result.verified is not None and result.verified.solved.count == answer.inliers
        assert set(result.timings_ms) >= {"extract", "match", "solve", "verify"}
        assert answer.covariance is not None
        assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
        found.append(kitchen.errors(index, answer))
    # Poses of the recording are good to a few centimetres.
    assert np.median([t for t, _ in found]) < 0.04
    assert np.median([r for _, r in found]) < 1.5


def test_frames_of_another_place_have_no_answer_but_a_reason(kitchen: Kitchen, shared_dir: Path) -> None:
    elsewhere = open_source(shared_dir / "data" / "tum_fr1_rpy")
    front_end = open_map_front_end(kitchen.scene, "hierarchical", LocalizerConfig())
    for index in (0, 300, 600):
        observation = front_end.observe(elsewhere.read(index), None)
        assert observation.absolute is None
        assert observation.relative is None
        assert observation.reason
    blank = Frame(0, np.full((480, 640), 90, np.uint8), Camera.pinhole(640, 480, 525, 525, 320, 240))
    assert "too few keypoints" in front_end.observe(blank, None).reason


@pytest.mark.parametrize("method", ["retrieval", "relative"])
def test_methods_without_points_answer_nearby(kitchen: Kitchen, method: str) -> None:
    front_end = open_map_front_end(kitchen.scene, method, LocalizerConfig())
    found = []
    for index in range(0, 20, 5):
        observation = front_end.observe(kitchen.queries.read(index), None)
        if observation.absolute is not None:
            found.append(kitchen.errors(index, observation.absolute)[0])
    assert len(found) >= 3
    assert np.median(found) < (0.3 if method == "retrieval" else 0.12)
