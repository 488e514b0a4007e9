"""Scenes side by side: one evaluation each, told apart by their settings, and a scene that cannot run is a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.compare import Comparison, SceneResult, compare, telling_settings
from localizer_ros.scene.bundle import Scene


@pytest.mark.slow
def test_a_scene_that_cannot_be_opened_is_a_row_with_its_error(comparison: Comparison) -> None:
    values = json.loads(comparison.to_json("localizer compare a b c d"))
    assert values["command"] == "localizer compare a b c d"
    assert (values["split"], values["frames"]) == ("all", 12)
    network, missing, structure = values["scenes"]
    assert [s["label"] for s in values["scenes"]] == ["posenet", "nowhere", "hierarchical"]
    assert missing["eval"] is None and "no such scene" in missing["error"]
    assert [s.path.name for s in comparison.failed] == ["nowhere"]
    for scene in (network, structure):
        assert scene["error"] is None and scene["eval"]["frames"] == 12
        assert scene["megabytes"] > 0.0 and scene["minutes"] > 0.0
    assert network["training_minutes"] is not None and structure["training_minutes"] is None
    assert network["settings"]["network.encoder"] == "mobilenet_v3_small"
    # Of the first scene that has the baseline, and once.
    assert values["nearest_neighbour"]["scene"] == network["scene"]
    assert structure["eval"]["nearest_neighbour"]["median_t_m"] is None
    assert "geometric" in network["eval"]["odometry"] and "geometric" not in structure["eval"]["odometry"]


def result(path: str, method: str, **settings: str) -> SceneResult:
    return SceneResult(Path(path), method, tuple(settings.items()))


def test_scenes_of_a_method_are_named_by_what_differs(tiny_source: FrameSource) -> None:
    def labels(*scenes: SceneResult) -> list[str]:
        return Comparison(tiny_source, "all", scenes).labels

    a = result("s/a", "posenet", loss="sigma", head="spatial", encoder="resnet18")
    b = result("s/b", "posenet", loss="sigma", head="lstm", encoder="resnet18")
    c = result("s/c", "lsg", memory="memory 5")
    assert labels(a, b, c) == ["posenet, spatial", "posenet, lstm", "lsg"]
    assert labels(a, c) == ["posenet", "lsg"]
    again = result("s/again", "posenet", loss="sigma", head="spatial", encoder="resnet18")
    assert labels(a, again) == ["posenet (a)", "posenet (again)"]
    assert labels(result("s/lost", ""), c) == ["lost", "lsg"]


def test_settings_are_those_of_the_scene(tmp_path: Path) -> None:
    config = MapConfig(method="lsg")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    scene = Scene(tmp_path, {"method": "lsg"})
    found = dict(telling_settings(scene))
    assert found["lsg.memory"] == "memory 5" and found["lsg.size"] == "light"
    assert telling_settings(Scene(tmp_path / "nowhere", {"method": "lsg"})) == ()


def test_an_unknown_split_is_the_recordings_error(tiny_source: FrameSource, tiny_map: Path) -> None:
    with pytest.raises(SourceError, match="validation"):
        compare([tiny_map], tiny_source, "validation", LocalizerConfig())
