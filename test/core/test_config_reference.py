"""What is said of settings: description, tiers, units, and the files that are generated from them."""

import re
from pathlib import Path

import pytest
import yaml

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.reference import COMMAND, FILES, TREES, settings_up_to, write_files
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import SettingSpec, config_to_dict, describe, setting_values
from localizer_ros.datasets.simulated import WorldConfig

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = [spec for kind in TREES.values() for spec in describe(kind)]


def ids(spec: SettingSpec) -> str:
    return spec.name


def test_a_user_of_a_robot_meets_at_most_30_settings() -> None:
    users = [spec.name for kind in TREES.values() for spec in settings_up_to(kind, "user")]
    assert len(users) <= 30
    assert {"scene", "method", "smoother.lag_s", "search.latency_s", "base_frame"} <= set(users)


def test_a_higher_tier_has_all_of_the_lower_ones_and_the_highest_has_everything() -> None:
    for kind in TREES.values():
        user, expert, everything = (settings_up_to(kind, tier) for tier in ("user", "expert", "research"))
        assert set(ids(s) for s in user) < set(ids(s) for s in expert) < set(ids(s) for s in everything)
        assert everything == describe(kind)


def test_every_setting_is_described_once_with_its_default() -> None:
    for kind in TREES.values():
        specs = describe(kind)
        assert {spec.name: spec.default for spec in specs} == setting_values(kind())
        assert len({spec.name for spec in specs}) == len(specs)


def test_the_node_has_what_a_localizer_has_and_what_only_its_process_needs() -> None:
    names = {spec.name for spec in describe(NodeConfig)}
    assert names - {spec.name for spec in describe(RunConfig)} == {"scene", "autostart", "cameras"}
    assert describe(NodeConfig)[0].name == "scene"


def test_a_description_tells_unit_range_choices_and_tier() -> None:
    specs = {spec.name: spec for spec in EVERY}
    lag = specs["smoother.lag_s"]
    assert (lag.unit, lag.low, lag.high, lag.tier) == ("s", (0.0, False), (60.0, True), "user")
    assert lag.range() == "> 0, <= 60" and lag.type is float and lag.group == "smoother"
    assert specs["image_transport"].choices == ("raw", "compressed")
    assert specs["network.width_px"].range() == ">= 64, <= 1024, a multiple of 32"
    assert specs["smoother.walk_rotation_deg_s"].unit == "deg/s"
    assert specs["transform_tolerance"].unit == "s"
    assert specs["structure.points.max_megabytes"].unit == "MB"
    light = {spec.name: spec for spec in describe(WorldConfig)}["light"]
    assert light.type is float and light.choices == ("day", "dim", "night")


@pytest.mark.parametrize("spec", EVERY, ids=ids)
def test_a_meaning_begins_with_its_subject(spec: SettingSpec) -> None:
    assert re.match(r"[A-Z]", spec.meaning), spec.meaning
    assert not re.match(r"(Of|At|To|In|On|When|How|Which|What)\b", spec.meaning), spec.meaning
    assert "docs/" not in spec.meaning and not spec.meaning.endswith(".")


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_what_the_structs_say(name: str) -> None:
    assert (REPOSITORY / name).read_text(encoding="utf-8") == FILES[name](), f"run {COMMAND}"


def test_the_files_are_written_below_the_root(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == sorted(FILES)


def test_the_full_parameter_file_has_every_default() -> None:
    tree = yaml.safe_load(FILES["config/localizer.param.yaml"]())
    assert tree["/**/localizer"]["ros__parameters"] == config_to_dict(NodeConfig())


def test_the_page_names_every_setting() -> None:
    page = FILES["docs/reference/parameters.md"]()
    assert all(f"| `{spec.name}` |" in page for spec in (*describe(MapConfig), *describe(NodeConfig)))
