"""Methods that search every frame: retrieval, relative poses and local maps on a simulated drive."""

from pathlib import Path

import numpy as np
import pytest
from answer_errors import answer_errors

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.types import Camera, ConfigError, Frame
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.simulated import SimulatedSource
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.local_map import LocalMapLocalizer
from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer
from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "limit_m", "limit_deg"),
    [("relative", 0.05, 1.0), ("local", 0.03, 0.6), ("retrieval", 0.06, 1.0)],
)
def test_frames_between_the_mapped_ones_are_found(
    posed_scenes: dict[str, Path], queries: SimulatedSource, method: str, limit_m: float, limit_deg: float
) -> None:
    found = answer_errors(posed_scenes[method], method, queries)
    assert len(found) >= len(queries.records) - 1
    # An image of a drive at 8 Hz and 0.6 m/s is up to 4 cm from the next frame asked for.
    assert np.median([t for t, _ in found]) < limit_m
    assert np.median([r for _, r in found]) < limit_deg


def test_a_frame_without_features_has_a_reason(posed_scenes: dict[str, Path]) -> None:
    blank = Frame(0, np.full((180, 240), 90, np.uint8), Camera.pinhole(240, 180, 150, 150, 120, 90))
    for method in posed_scenes:
        front_end = open_map_front_end(posed_scenes[method], method, LocalizerConfig())
        observation = front_end.observe(blank, None)
        assert observation.absolute is None and observation.reason


def test_frames_of_another_place_are_not_answered(
    posed_scenes: dict[str, Path], elsewhere: SimulatedSource
) -> None:
    for method in posed_scenes:
        assert answer_errors(posed_scenes[method], method, FirstFrames(elsewhere, 3)) == []


def test_settings_that_do_not_fit_a_method_are_errors(posed_scenes: dict[str, Path]) -> None:
    scene = MapScene.open(posed_scenes["retrieval"])
    with pytest.raises(ConfigError, match=r"interpolation: motion needs .*rerank"):
        RetrievalLocalizer(scene, SearchConfig(rerank="never"))
    for localizer in (RetrievalLocalizer, RelativeLocalizer, LocalMapLocalizer, HierarchicalLocalizer):
        with pytest.raises(ConfigError, match=r"lightglue needs the network"):
            localizer(scene, SearchConfig(matcher="lightglue"))
    with pytest.raises(ConfigError, match="direct"):
        HierarchicalLocalizer(scene, SearchConfig(matcher="lightglue"), direct=True)
