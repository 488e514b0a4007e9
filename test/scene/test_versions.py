"""Scenes made by other versions: refused in words that name both, or read without the settings that have gone."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from localizer_ros import __version__
from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_to_dict, without_unknown
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.scene.bundle import FORMAT_VERSION, MANIFEST, Scene
from localizer_ros.scene.point_map import FORMAT, PointMap

SETTINGS = Path("map") / "point_map.yaml"


def changed(scene: Path, file: Path, change: dict[str, Any]) -> None:
    """Put values into a YAML file of a scene as another version would have written them."""
    values = yaml.safe_load((scene / file).read_text())
    (scene / file).write_text(yaml.safe_dump({**values, **change}))
    if file != Path(MANIFEST):
        manifest = yaml.safe_load((scene / MANIFEST).read_text())
        manifest["files"][str(file)] = sha256_of(scene / file)
        (scene / MANIFEST).write_text(yaml.safe_dump(manifest))


@pytest.fixture
def scene(tiny_map: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_map, tmp_path / "scene")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (FORMAT_VERSION + 1, "update localizer_ros"),
        (FORMAT_VERSION - 1, "map the recording again"),
        (None, "is missing"),
        ("new", "is missing"),
    ],
)
def test_another_format_is_said_before_anything_else(scene: Path, found: object, expected: str) -> None:
    # Everything else of it is different, too: that must not be what the user reads.
    (scene / MANIFEST).write_text(
        yaml.safe_dump({"format_version": found, "versions": {"localizer_ros": "7.8.9"}, "files": 3})
    )
    with pytest.raises(SceneError, match=expected) as caught:
        Scene.load(scene)
    assert MANIFEST in str(caught.value)
    if isinstance(found, int):
        assert f"format_version {found}, written by localizer_ros 7.8.9" in str(caught.value)
        assert f"{__version__}, which reads format_version {FORMAT_VERSION}" in str(caught.value)


def test_another_format_of_the_map_is_said(scene: Path) -> None:
    changed(scene, SETTINGS, {"format": FORMAT + 1})
    with pytest.raises(SceneError, match=rf"point_map\.yaml: format {FORMAT + 1}, written by .*update"):
        PointMap.load(scene / "map")


def test_settings_that_have_gone_are_ignored_and_named(
    scene: Path, tiny_source: FrameSource, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config_to_dict(PointMap.load(scene / "map").settings)
    settings["bundle"]["magic"] = 0.3
    settings["features"]["octaves"] = {"first": -1}
    settings["voodoo"] = True
    changed(scene, SETTINGS, {"settings": settings})
    with caplog.at_level(logging.WARNING):
        front_end = open_map_front_end(scene, Scene.load(scene).method, LocalizerConfig())
    (record,) = caplog.records
    for name in ("bundle.magic", "features.octaves", "voodoo", "another version"):
        assert name in record.getMessage()
    assert front_end.observe(tiny_source.read(20), None).absolute is not None
    front_end.close()


def test_a_value_that_has_gone_is_an_error_that_names_it(scene: Path) -> None:
    settings = config_to_dict(PointMap.load(scene / "map").settings)
    settings["features"]["kind"] = "telepathy"
    changed(scene, SETTINGS, {"settings": settings})
    with pytest.raises(SceneError, match=r"point_map\.yaml: features\.kind: expected .*telepathy"):
        PointMap.load(scene / "map")


def test_nothing_of_todays_settings_is_unknown() -> None:
    values = config_to_dict(StructureConfig())
    assert without_unknown(StructureConfig, values) == (values, [])
    assert without_unknown(StructureConfig, [1]) == ([1], [])
