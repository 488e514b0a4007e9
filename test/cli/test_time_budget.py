"""The time that training may take, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.cli.options import minutes as read_minutes
from localizer_ros.core.types import ConfigError


@pytest.mark.parametrize(
    ("text", "minutes"), [("10min", 10.0), ("90s", 1.5), ("0.5h", 30.0), (" 2 h ", 120.0), ("7", 7.0)]
)
def test_a_time_budget_is_read(text: str, minutes: float) -> None:
    assert read_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "ten", "10 m", "-5min", "0s", "nan", "infh", "1e3", "5min5s"])
def test_nonsense_is_no_time_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="--time-budget: expected"):
        read_minutes(text)


def test_a_time_budget_without_training_is_an_error(tmp_path: Path) -> None:
    world = tmp_path / "world.yaml"
    world.write_text("duration_s: 1.0")
    result = CliRunner().invoke(
        app, ["map", str(world), "--out", str(tmp_path / "scene"), "--time-budget", "5min"]
    )
    assert result.exit_code == 1 and "trains no network; leave --time-budget out" in result.stderr
