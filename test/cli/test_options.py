"""What the options that commands share mean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import localizer, one_line
from small_recordings import Changed

from localizer_ros.cli.main import app
from localizer_ros.cli.options import as_recorded, counts, minutes
from localizer_ros.cli.reading import Reading
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.simulated import WorldConfig


def test_topics_of_a_bag_are_chosen(world: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    assert localizer("simulate", bag, "--world", world).exit_code == 0
    facts = localizer(
        "info", bag, "--json", "--topic", "ground_truth=none", "--topic", "odometry=none"
    ).stdout
    assert json.loads(facts)["ground_truth"]["name"] == "none" and json.loads(facts)["odometry"] is None
    assert "/camera/image_raw" in one_line(localizer("info", bag, "--topic", "image=/left"))
    assert "expected e.g." in one_line(localizer("info", bag, "--topic", "image"))
    assert "unknown topic option" in one_line(localizer("info", bag, "--topic", "sound=/x"))
    assert "not a bag" in one_line(localizer("info", world, "--topic", "image=/left"))


def test_the_setting_that_help_names_is_one_of_the_command() -> None:
    trees = {"simulate": WorldConfig, "sfm": MapConfig, "map": MapConfig}
    group: Any = typer.main.get_command(app)
    shown = {
        (name, found[1])
        for name, command in group.commands.items()
        for option in command.params
        if "--set" in option.opts and (found := re.search(r"e\.g\. (\S+=\S+)\. Repeatable", option.help))
    }
    assert {name for name, _ in shown} >= {*trees, "eval", "compare", "bench", "replay"}
    for name, setting in shown:
        tree = trees.get(name, RunConfig)
        assert load_config(tree, None, [setting]) != tree(), f"{name}: {setting} is the default"


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "nowhere", "out", "--to", "tape"),
        ("sfm", "nowhere", "--out", "out", "--align", "tape"),
    ],
)
def test_options_are_looked_at_before_a_recording_is_read(words: tuple[str, ...]) -> None:
    assert "got 'tape'" in one_line(localizer(*words))


def test_what_has_no_times_is_localised_frame_by_frame(world: Path) -> None:
    recording = Reading().open(world)
    assert as_recorded(RunConfig(), recording).independent is False
    assert as_recorded(RunConfig(), recording, independent=True).independent is True
    stills = Changed(recording)
    stills.stamps = "invented"
    assert as_recorded(RunConfig(), stills).independent is True


@pytest.mark.parametrize(("text", "numbers"), [("", []), ("1000,10000", [1000, 10000]), (" 5 , 6,", [5, 6])])
def test_counts_are_read(text: str, numbers: list[int]) -> None:
    assert counts("--index-images", text) == numbers


@pytest.mark.parametrize("text", ["many", "0", "-5", "10,1e3", "1.5"])
def test_nonsense_is_no_count(text: str) -> None:
    with pytest.raises(ConfigError, match="--index-images: expected numbers such as"):
        counts("--index-images", text)


@pytest.mark.parametrize(
    ("text", "expected"), [("10min", 10.0), ("90s", 1.5), ("0.5h", 30.0), (" 2 h ", 120.0), ("7", 7.0)]
)
def test_a_time_budget_is_read(text: str, expected: float) -> None:
    assert minutes(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "ten", "10 m", "-5min", "0s", "nan", "infh", "1e3", "5min5s"])
def test_nonsense_is_no_time_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="--time-budget: expected"):
        minutes(text)
