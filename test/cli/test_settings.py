"""`localizer settings`: what it prints is every setting of a tree up to a tier."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from localizer_ros.cli.main import app
from localizer_ros.core.config.reference import TREES, settings_up_to
from localizer_ros.core.config.schema import TIERS, Tier


def settings(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["settings", *arguments])


def names(text: str) -> list[str]:
    return [line.split(": ")[0] for line in text.splitlines() if line and line[0] not in " #"]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("tree", TREES)
def test_it_prints_every_setting_of_a_tree_up_to_a_tier(tree: str, tier: Tier) -> None:
    result = settings(tree, "--tier", tier)
    assert result.exit_code == 0
    assert names(result.stdout) == [spec.name for spec in settings_up_to(TREES[tree], tier)]


def test_by_default_it_prints_what_a_user_sets_and_says_how_many_more_there_are() -> None:
    result = settings()
    assert "method: hierarchical  [user]" in result.stdout
    assert "smoother.lag_s: 3.0  [s, > 0, <= 60; user]" in result.stdout
    assert "    Time that past poses are kept in the graph" in result.stdout
    assert "training.epochs" not in result.stdout and "backend.kind: auto  [auto | torch" in result.stdout
    assert "more of tier expert: --tier expert" in result.stderr
    assert "more of tier research: --tier research" in result.stderr


@pytest.mark.parametrize("wrong", [("cook",), ("run", "--tier", "king")])
def test_another_tree_or_tier_is_an_error_that_lists_those_there_are(wrong: tuple[str, ...]) -> None:
    result = settings(*wrong)
    assert result.exit_code == 1
    assert "expected" in result.stderr and wrong[-1] in result.stderr
