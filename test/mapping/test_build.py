"""A scene appears whole or not at all, and an interrupted mapping goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import ConfigError, SceneError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.bundle import Scene


@pytest.mark.slow
def test_a_scene_is_whole_or_not_there(tiny_source: FrameSource, tmp_path: Path) -> None:
    out = tmp_path / "scene"

    def fail(stage: str, done: int, total: int) -> None:
        if stage == "training":
            raise KeyboardInterrupt

    config = config_from_dict(
        MapConfig,
        {
            "method": "posenet",
            "network": {"encoder": "mobilenet_v3_small", "width_px": 96, "height_px": 64, "hidden": 16},
            "training": {"epochs": 1, "batch_size": 8, "augmentation": {"virtual_move": 0.0}},
        },
    )
    with pytest.raises(KeyboardInterrupt):
        build_scene(tiny_source, "all", config, out, progress=fail)
    assert not out.exists()
    other = config_from_dict(MapConfig, {"training": {"epochs": 2}})
    with pytest.raises(ConfigError, match="other settings"):
        build_scene(tiny_source, "all", other, out)
    fewer = FirstFrames(tiny_source, len(tiny_source.records) - 1)
    with pytest.raises(ConfigError, match="other frames"):
        build_scene(fewer, "all", config, out)
    facts = build_scene(tiny_source, "all", config, out)
    assert facts["accuracy"]["part"] == "validation"
    assert Scene.load(out).method == "posenet"
    assert [p.name for p in tmp_path.iterdir()] == ["scene"]
    with pytest.raises(SceneError, match="exists already"):
        build_scene(tiny_source, "all", config, out)


def test_only_networks_are_trained_by_several_processes(
    tiny_source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="hierarchical scene trains no network"):
        build_scene(tiny_source, "all", MapConfig(), tmp_path / "scene")
