"""Five seconds that the map does not know, and no odometry: the camera itself carries the pose to the other side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import Status
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.localization.map_based.hierarchical import PlaceSearch
from localizer_ros.localization.map_based.search import ViewResult
from localizer_ros.localization.map_based.tracking import Tracker
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY
from localizer_ros.mapping.build import build_scene

pytestmark = pytest.mark.slow

WORLD = {"duration_s": 8.5, "fps": 12.0, "width_px": 320, "height_px": 240, "moving_objects": 0}
GAP = range(24, 84)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mapped = SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "fps": 4.0}))
    folder = tmp_path_factory.mktemp("gap") / "scene"
    config = {"method": "hierarchical", "structure": {"retrieval": {"words": 16}}}
    build_scene(mapped, "all", config_from_dict(MapConfig, config), folder)
    return folder


def test_the_pose_is_carried_through_five_seconds_that_are_not_mapped(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = SimulatedSource(config_from_dict(WorldConfig, WORLD))
    localizer = open_localizer(scene, LocalizerConfig())
    with monkeypatch.context() as unmapped:
        for index, record in enumerate(drive.records):
            if index == GAP.start:
                unmapped.setattr(Tracker, "track", lambda *_: None)
                unmapped.setattr(Tracker, "carry", lambda *_: None)
                unmapped.setattr(PlaceSearch, "search", lambda *_: ViewResult(None, "not mapped"))
            if index == GAP.stop:
                unmapped.undo()
            output = localizer.process(drive.read(index))
            estimate, T_true = output.estimate, record.T_map_cam
            assert estimate is not None and estimate.covariance is not None and T_true is not None
            error = (estimate.T_map_cam.inverse() @ T_true).log()
            if index in GAP:
                assert output.absolute is None
                assert [motion.source for motion in output.motions] == [VISUAL_ODOMETRY]
                # 0.999 of chi-squared with 6 degrees of freedom.
                assert float(error @ np.linalg.solve(estimate.covariance, error)) < 22.5
            if index == GAP.stop - 1:
                assert output.status is Status.DEGRADED
                assert np.linalg.norm(error[3:]) < 0.03 * path_m(drive, GAP)
    # The map again, and what was carried there agrees with it.
    assert output.status is Status.TRACKING
    assert np.linalg.norm(error[3:]) < 0.05
    localizer.close()


def path_m(drive: SimulatedSource, frames: range) -> float:
    """Length of the true way over some frames."""
    places = np.stack([T.t for i in frames if (T := drive.records[i].T_map_cam) is not None])
    return float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
