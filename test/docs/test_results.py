"""Pages of results: each figure stands in one JSON file, and pages and marked places show what stands there."""

import json
from pathlib import Path

import pytest
import results_pages
from results_pages import ResultsError, expected, filled, load, page_text, take, with_places

PAGE = {
    "title": "A place",
    "about": ["Walked once, {runs.first.eval.frames:count} frames."],
    "runs": {
        "runs": {
            "commands": ["localizer eval scenes/first place"],
            "machine": "one core",
            "versions": {"localizer_ros": "0.1.0"},
            "rows": {
                "first": {
                    "label": "first",
                    "eval": {"frames": 3, "median_t_m": 0.05, "raw": {"median_t_m": 0.1}},
                },
                "second": {"label": "second", "eval": {"frames": 3, "raw": {"median_t_m": 1.5}}},
            },
        }
    },
    "tables": [
        {
            "id": "poses",
            "title": "Poses",
            "rows": ["runs"],
            "columns": [
                ["method", "{label:text}"],
                ["error", "{eval.raw.median_t_m:length} -> {eval.median_t_m:length}"],
            ],
        }
    ],
}


def test_committed_pages_are_those_of_the_json_files() -> None:
    texts = expected()
    assert any(path.parent == results_pages.RESULTS for path in texts)
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path} differs from its JSON: run python tools/results_pages.py"
        )


def test_every_page_of_results_has_its_json() -> None:
    pages = {path.stem for path in results_pages.RESULTS.glob("*.md")}
    assert pages == {path.stem for path in results_pages.RESULTS.glob("*.json")}


def test_every_run_says_where_its_figures_come_from() -> None:
    for path in results_pages.RESULTS.glob("*.json"):
        for name, run in load(path.stem)["runs"].items():
            assert run["machine"] and run["versions"]["commit"], f"{path.name}, {name}"


def test_a_page_has_a_row_a_scene_and_a_dash_for_what_is_not_known() -> None:
    text = page_text("place", PAGE)
    assert "Walked once, 3 frames." in text
    assert (
        "localizer eval scenes/first place" in text and "one core" in text and "localizer_ros 0.1.0" in text
    )
    assert "| first | 10.0 cm -> 5.0 cm |" in text
    assert "| second | 1.50 m -> – |" in text


def test_a_cell_without_any_figure_is_one_dash() -> None:
    assert filled("{a:length} -> {b:length}", {}) == "–"
    assert filled("{a:count} of {b:count}", {"a": 1}) == "–"


def test_the_first_alternative_that_is_known_stands_in_a_cell() -> None:
    assert filled("{a:ms}; {b:ms} or {c:whole} of CPU", {"c": 7}) == "7 of CPU"
    assert filled("{a:ms}; {b:ms} or {c:whole} of CPU", {"a": 1, "b": 2, "c": 7}) == "1.0; 2.0"
    assert filled("{a:ms}; {b:ms} or {c:whole} of CPU", {}) == "–"


def test_marked_places_are_filled_from_the_json(tmp_path: Path) -> None:
    (tmp_path / "place.json").write_text(json.dumps(PAGE))
    text = "It errs by <!-- results: place {runs.first.eval.median_t_m:length} -->9 m<!-- end --> here."
    assert with_places(text, tmp_path) == text.replace("9 m", "5.0 cm")
    table = with_places("<!-- results: place poses -->old<!-- end -->", tmp_path)
    assert "| first | 10.0 cm -> 5.0 cm |" in table and "old" not in table
    assert with_places(table, tmp_path) == table


@pytest.mark.parametrize("what", ["{runs.first.eval.mean_t_m:length}", "{runs.third.label:text}", "nothing"])
def test_a_place_without_its_figure_is_an_error(tmp_path: Path, what: str) -> None:
    (tmp_path / "place.json").write_text(json.dumps(PAGE))
    with pytest.raises(ResultsError):
        with_places(f"<!-- results: place {what} --><!-- end -->", tmp_path)


def test_an_evaluation_gives_its_figures_to_the_row_of_its_scene() -> None:
    run = json.loads(json.dumps(PAGE["runs"]))["runs"]
    evaluation = {
        "scene": "/somewhere/second",
        "frames": 4,
        "median_t_m": 0.2,
        "raw": {"frames": 4, "median_t_m": 0.3},
        "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "stages": {}},
        "odometry": {"vo": {"rpe_t_m": 0.1, "lengths": "own"}},
        "versions": {"localizer_ros": "0.2.0"},
    }
    assert take(run, evaluation) == ["second"]
    assert run["rows"]["second"]["eval"]["median_t_m"] == 0.2
    assert run["rows"]["second"]["eval"]["latency_ms"] == {"p50": 1.0, "p99": 3.0}
    assert run["rows"]["first"]["eval"]["median_t_m"] == 0.05
    assert run["versions"] == {"localizer_ros": "0.2.0"}
