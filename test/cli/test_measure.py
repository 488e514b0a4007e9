"""Commands that localise a recording in a scene and look at the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import localizer, one_line
from conftest import TINY_WORLD


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The recording that the small scenes were made of."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY_WORLD))
    return file


def test_eval_prints_a_summary_and_everything_with_verbose(tiny_map: Path, recording: Path) -> None:
    short = localizer("eval", tiny_map, recording, "--limit", "4")
    assert short.exit_code == 0, short.output
    lines = short.stdout.splitlines()
    reasons = [line for line in lines if line.startswith("  ")]
    assert lines[0].startswith("verdict: ") and 9 <= len(lines) - len(reasons) <= 12
    assert any(line.startswith("answered: ") and "of 4 frames" in line for line in lines)
    long = localizer("eval", tiny_map, recording, "--limit", "4", "--verbose")
    assert len(long.stdout.splitlines()) > 60 and "nearest_neighbour:" in long.stdout
    assert "verdict: " in long.stdout.splitlines()[-len(lines)]


def test_eval_json_on_standard_output_is_nothing_but_json(tiny_map: Path, recording: Path) -> None:
    ran = localizer("eval", tiny_map, recording, "--limit", "2", "--json", "-")
    assert json.loads(ran.stdout)["frames"] == 2


def test_compare_writes_the_table_and_the_command_that_made_it(
    tiny_map: Path, recording: Path, tmp_path: Path
) -> None:
    table, values = tmp_path / "tables" / "table.md", tmp_path / "result.json"
    ran = localizer("compare", tiny_map, recording, "--limit", "4", "--out", table, "--json", values)
    assert ran.exit_code == 0, ran.output
    made_by = f"localizer compare {tiny_map} {recording} --limit 4"
    assert made_by in table.read_text() and json.loads(values.read_text())["command"] == made_by
    assert table.read_text() in ran.stdout  # not a terminal: the table that can be pasted


def test_compare_goes_on_after_a_scene_that_cannot_be_opened(
    tiny_map: Path, recording: Path, tmp_path: Path
) -> None:
    ran = localizer("compare", tiny_map, tmp_path / "nowhere", recording, "--limit", "2", "--json", "-")
    assert ran.exit_code == 1
    assert [s["error"] is None for s in json.loads(ran.stdout)["scenes"]] == [True, False]
    assert ran.stderr.splitlines()[-1] == "localizer: 1 of 2 scenes could not be run"
    assert "does not exist" in one_line(localizer("compare", tiny_map, tmp_path / "no recording"))


@pytest.mark.slow
def test_bench_times_retrieval(tiny_map: Path, recording: Path, tmp_path: Path) -> None:
    call = ("bench", tiny_map, recording, "--limit", "5", "--limits", "--index-images")
    result = localizer(*call, "100,200", "--json", tmp_path / "bench.json")
    assert result.exit_code == 0, result.output
    assert "growth" in result.output and "images 200" in result.output
    measured = json.loads((tmp_path / "bench.json").read_text())
    reached = measured["limits"]["reached"]["default"]
    # Which of its stages a frame needs depends on whether the map tracks it.
    stages = [reached[stage]["mb_s"] for stage in ("track_flow", "search_extract") if stage in reached]
    assert stages and min(stages) > 0.0
    sizes = measured["retrieval"]["sizes"]
    assert [row["images"] for row in sizes] == [100, 200]
    assert "expected numbers" in one_line(localizer(*call, "many"))
