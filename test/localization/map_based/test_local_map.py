"""Maps made for a frame from the images around it, and the scenes that they are made from."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.simulated import SimulatedSource
from localizer_ros.features.matchers import MutualMatcher
from localizer_ros.localization.map_based import local_map
from localizer_ros.localization.map_based.local_map import LocalMaps
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


def test_scenes_of_posed_images_hold_no_points_and_name_no_places(posed_scenes: dict[str, Path]) -> None:
    for method in ("local", "retrieval"):
        point_map = MapScene.open(posed_scenes[method]).point_map
        assert len(point_map.points) == 0 and len(point_map.observation_point) > 500
        assert np.all(point_map.observation_point == -1)
        assert 0.5 < point_map.median_depth < 10.0
        manifest = yaml.safe_load((posed_scenes[method] / "scene.yaml").read_text())
        assert manifest["map"]["validation"]["beyond_deg"] > 0.0
    text = "".join(file.read_text() for folder in posed_scenes.values() for file in folder.rglob("*.yaml"))
    assert str(posed_scenes["local"].parent) not in text
    assert CliRunner().invoke(app, ["info", str(posed_scenes["local"])]).exit_code == 0


def test_points_of_a_local_map_lie_on_what_the_images_show(
    posed_scenes: dict[str, Path], drive: SimulatedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = MapScene.open(posed_scenes["local"])
    maps = LocalMaps(scene, MutualMatcher(0.85))
    images = range(len(scene.point_map.names))
    local = maps.around(images)
    assert len(local.points) > 50
    index = {record.name: n for n, record in enumerate(drive.records)}
    off: list[float] = []
    for image, T in enumerate(local.T_map_refined):
        seen_here = local.observation_image == image
        depth = (local.points[local.observation_point[seen_here]] - T[:3, 3]) @ T[:3, 2]
        column, row = np.rint(local.observation_xy_px[seen_here]).astype(int).T
        off.extend(np.abs(depth * drive.render(index[local.names[image]])[1][row, column] - 1.0))
    # The rays of a point meet at 1.5 degrees at least.
    assert np.median(off) < 0.05
    assert maps.around(reversed(images)) is local
    monkeypatch.setattr(local_map, "_MAPS_KEPT", 2)
    for n in range(3):
        maps.around([n, n + 1, n + 2])
    assert maps.around(images) is not local


def test_too_few_poses_make_no_scene(drive: SimulatedSource, tmp_path: Path) -> None:
    config = config_from_dict(MapConfig, {"method": "local"})
    with pytest.raises(SourceError, match="expected at least 3"):
        build_scene(FirstFrames(drive, 2), "all", config, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()
