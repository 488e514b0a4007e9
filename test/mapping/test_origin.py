"""Places far from the zero of their map frame, as in coordinates of a country."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MAP

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import PoseEstimate
from localizer_ros.datasets.derived import ShiftedSource
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.open_scene import open_scene
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.bundle import Scene

UTM_M = np.array([456_789.25, 5_428_765.5, 312.0])


@pytest.fixture(scope="module")
def far_source(tiny_source: FrameSource) -> FrameSource:
    return ShiftedSource(tiny_source, -UTM_M)


def answers(scene: Path, source: FrameSource) -> list[PoseEstimate | None]:
    # Fine keypoints at once: whether coarse ones are enough hangs on a threshold that rounding may tip.
    localizer = open_localizer(scene, LocalizerConfig(search=SearchConfig(fine_features="always")))
    try:
        return [localizer.process(source.read(index)).absolute for index in range(0, 24, 3)]
    finally:
        localizer.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hierarchical", "retrieval"])
def test_a_place_in_utm_answers_as_one_at_zero(
    method: str, tiny_source: FrameSource, far_source: FrameSource, tmp_path: Path
) -> None:
    config = config_from_dict(MapConfig, {**TINY_MAP, "method": method})
    for name, source in (("near", tiny_source), ("far", far_source)):
        build_scene(source, "all", config, tmp_path / name)
    assert np.array_equal(Scene.load(tmp_path / "near").origin_m, np.zeros(3))
    assert np.array_equal(Scene.load(tmp_path / "far").origin_m, [457_000.0, 5_429_000.0, 0.0])
    pairs = list(
        zip(answers(tmp_path / "near", tiny_source), answers(tmp_path / "far", tiny_source), strict=True)
    )
    assert sum(near is not None for near, _ in pairs) > 4
    for near, far in pairs:
        assert (near is None) == (far is None)
        if near is not None and far is not None:
            assert far.T_map_cam.shifted(-UTM_M).distance_to(near.T_map_cam) < 2e-4


@pytest.mark.slow
def test_poses_come_and_go_in_the_map_frame(far_source: FrameSource, tmp_path: Path) -> None:
    scene = tmp_path / "far"
    build_scene(far_source, "all", config_from_dict(MapConfig, TINY_MAP), scene)
    truth = far_source.records[9].T_map_cam
    assert truth is not None
    with open_scene(scene, LocalizerConfig(), with_baseline=True) as opened:
        nearest = (
            opened.baseline.poses[opened.baseline.nearest(far_source.read(9))] if opened.baseline else None
        )
        assert nearest is not None and nearest.distance_to(truth) < 0.5
        frame = far_source.read(9)
        covariance = np.eye(6) * 0.01**2
        opened.localizer.set_prior(
            PoseEstimate(frame.stamp_ns, truth @ SE3.exp([0, 0, 0, 0.02, 0, 0]), covariance, "hint")
        )
        output = opened.localizer.process(frame)
        assert output.estimate is not None and output.absolute is not None
        assert output.estimate.T_map_cam.distance_to(truth) < 0.05
        assert output.absolute.T_map_cam.distance_to(truth) < 0.05
