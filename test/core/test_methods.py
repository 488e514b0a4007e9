"""The table of methods: everything else follows from it, and a new method is one file and one row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.methods import METHODS, Family, Method, find_method, load
from localizer_ros.core.types import ConfigError, SceneError
from localizer_ros.localization.localizer import open_localizer

TOY = Method(
    "constant_pose",
    Family.POSED_IMAGES,
    "the first pose that was mapped",
    "constant_pose:build",
    "constant_pose:open_constant_pose",
)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_what_a_row_names_is_there(method: Method) -> None:
    for reference in (method.builder, method.opener, method.network):
        assert reference is None or callable(load(reference))
    assert method.trains_network == (method.family is Family.NETWORK)
    assert method.description and not method.description.endswith(".")


def test_the_help_and_the_settings_name_every_method() -> None:
    page = CliRunner().invoke(app, ["map", "--help"], env={"COLUMNS": "200"}).output
    for name in METHODS:
        assert name in page
        assert load_config(MapConfig, overrides=[f"method={name}"]).method == name


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A recording of eight frames."""
    file = tmp_path / "world.yaml"
    file.write_text("width_px: 64\nheight_px: 64\nfps: 8\nduration_s: 1.0\n")
    return file


@pytest.fixture
def toy_scene(monkeypatch: pytest.MonkeyPatch, world: Path, tmp_path: Path) -> Path:
    """A scene of the new method, made as a user makes one."""
    monkeypatch.setitem(METHODS, TOY.name, TOY)
    run("map", world, "--method", TOY.name, "--out", tmp_path / "scene")
    return tmp_path / "scene"


def run(*arguments: str | Path) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def test_one_file_and_one_row_make_a_method(toy_scene: Path, world: Path, tmp_path: Path) -> None:
    run("eval", toy_scene, world, "--json", tmp_path / "result.json")
    facts = json.loads((tmp_path / "result.json").read_text())
    assert facts["method"] == TOY.name and facts["answered"] == facts["frames"] == 8


def test_a_name_that_is_no_method_is_told_the_nearest_one(toy_scene: Path) -> None:
    expected = r"method: expected one of hierarchical, .*, got 'hierarchic'; did you mean hierarchical\?"
    with pytest.raises(ConfigError, match=expected):
        find_method("hierarchic")
    with pytest.raises(ConfigError, match=expected):
        load_config(MapConfig, overrides=["method=hierarchic"])
    with pytest.raises(ConfigError, match=r"got 'x'$"):
        find_method("x")
    manifest = yaml.safe_load((toy_scene / "scene.yaml").read_text())
    (toy_scene / "scene.yaml").write_text(yaml.safe_dump(manifest | {"method": "hierarchic"}))
    with pytest.raises(SceneError, match=f"scene: {expected}"):
        open_localizer(toy_scene, LocalizerConfig())
