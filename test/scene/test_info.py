"""What `localizer info` says of a scene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.core.types import SceneError
from localizer_ros.scene.bundle import FORMAT_VERSION, Scene
from localizer_ros.scene.info import scene_info
from localizer_ros.scene.point_map import PointMap


def shown(scene: Path) -> dict[str, object]:
    result = CliRunner().invoke(app, ["info", str(scene), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_facts_of_a_map_of_points(tiny_map: Path) -> None:
    facts = shown(tiny_map)
    point_map, stored = facts["point_map"], PointMap.load(tiny_map / "map")
    assert point_map["images"] == point_map["images_with_points"] == len(stored.names)
    assert point_map["points"] == len(stored.points)
    length = np.bincount(stored.observation_point)
    assert point_map["track_length"]["mean"] == pytest.approx(length.mean())
    assert sum(point_map["track_length"]["histogram"].values()) == point_map["points"]
    # Mapping keeps nothing worse than a few pixels, and writes down the median itself.
    error = point_map["reprojection_error_px"]
    assert 0.0 < error["median"] < error["p90"] < 4.0
    recorded = Scene.load(tiny_map).manifest["map"]
    assert error["median"] == pytest.approx(recorded["reprojection_error_px"], abs=0.02)
    assert facts["map"]["validation"] == recorded["validation"] and "points" not in facts["map"]
    assert facts["index"]["kind"] == "flat" and facts["index"]["images"] == recorded["indexed"]
    assert facts["versions"]["localizer_ros"] and facts["format_version"] == FORMAT_VERSION
    assert facts["method"] == "hierarchical" and "networks" not in facts


@pytest.mark.slow
def test_facts_of_a_network(tiny_scene: Path) -> None:
    facts = shown(tiny_scene)
    posenet = facts["networks"]["posenet"]
    assert posenet["parameters"] > 100_000 and 0.3 < posenet["weights_mb"] < 50.0
    assert posenet["inputs"]["image"] == "1x3x64x96"
    assert facts["learning"]["epochs"] == 2 and facts["accuracy"]["median_t_m"] > 0.0
    assert "point_map" not in facts and "index" not in facts


@pytest.mark.parametrize("kind", [pytest.param("tiny_scene", marks=pytest.mark.slow), "tiny_map"])
def test_parts_on_disk_add_up(kind: str, request: pytest.FixtureRequest) -> None:
    scene = request.getfixturevalue(kind)
    parts = scene_info(scene)["disk_mb"]
    total = parts.pop("total")
    assert total == pytest.approx(sum(parts.values()), abs=0.01 * len(parts))
    assert total == pytest.approx(
        sum(f.stat().st_size for f in scene.rglob("*") if f.is_file()) / 1e6, abs=0.01
    )


def test_the_text_shows_what_the_json_holds(tiny_map: Path) -> None:
    text = CliRunner().invoke(app, ["info", str(tiny_map)]).stdout
    for word in ("images_with_points", "histogram", "reprojection_error_px", "disk_mb", "validation", "flat"):
        assert word in text


def test_what_is_not_a_scene_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="not a scene"):
        scene_info(tmp_path)
