"""Pages of measured results, made from docs/results/*.json: a figure stands in the JSON and nowhere else.

    python tools/results_pages.py                               write every page and every marked place again
    python tools/results_pages.py --check                       say which of them differ; exit code 1 when any does
    python tools/results_pages.py --take PAGE RUN RESULT.json   first put new figures into docs/results/PAGE.json

RESULT.json is what `localizer compare --json` or `localizer eval --json` wrote; a row takes the figures of the scene
whose folder has the row's id as its name.

A JSON file has `runs` (commands, machine, versions, and rows of figures in metres, degrees, seconds) and `tables`,
which name rows of runs and what stands in each column. A template is text with fields `{path:unit}`, the path relative
to the row; in notes and in marked places of other documents the path begins with the run and the row. Such a place is

    <!-- results: PAGE TABLE -->...<!-- end -->         a table
    <!-- results: PAGE {run.row.path:unit} -->...<!-- end -->   a figure within a sentence
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "docs" / "results"
UNKNOWN = "–"
UNITS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "plain": lambda v: f"{v:g}",
    "count": lambda v: f"{v:d}",
    "m": lambda v: f"{v:.2f} m",
    "length": lambda v: f"{100 * v:.1f} cm" if v < 1.0 else f"{v:.2f} m",
    "cm": lambda v: f"{100 * v:.2f} cm",
    "deg": lambda v: f"{v:.2f}°",
    "fine_deg": lambda v: f"{v:.3f}°",
    "whole_deg": lambda v: f"{v:.0f}°",
    "percent": lambda v: f"{100 * v:.0f} %",
    "fine_percent": lambda v: f"{100 * v:.1f} %",
    "plain_percent": lambda v: f"{100 * v:g} %",
    "hundredths_percent": lambda v: f"{100 * v:.2f} %",
    "ms": lambda v: f"{v:.1f}",
    "fine_ms": lambda v: f"{v:.2f}",
    "number": lambda v: f"{v:.1f}",
    "ratio": lambda v: f"{v:.2f}",
    "minutes": lambda v: f"{v:.1f}",
    "whole": lambda v: f"{v:.0f}",
}
FIELD = re.compile(r"\{([\w.]+):(\w+)\}")
PLACE = re.compile(r"(<!-- results: (\S+) (.+?) -->)(.*?)(<!-- end -->)", re.DOTALL)
# What is kept of an evaluation's JSON, at its top (after smoothing) and under `raw`.
KEPT = (
    *("frames", "answered", "median_t_m", "median_r_deg", "mean_t_m", "mean_r_deg", "p90_t_m", "p90_r_deg"),
    *("recall", "wrong_fraction", "ate_rmse_m", "rpe_t_m", "rpe_r_deg", "jitter_t_m", "jitter_r_deg"),
    *("nees_median",),
)
KEPT_OF_MOTIONS = (
    *("rpe_t_m", "rpe_r_deg", "rpe_median_t_m", "rpe_median_r_deg", "drift_percent", "ate_rmse_m"),
    *("nees_1s_median",),
)


class ResultsError(Exception):
    """A JSON file, or a place that refers to one, is not as it should be; the message names it."""


def load(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The content of ``folder/name.json``. Raises ResultsError when it is missing or not JSON."""
    path = folder / f"{name}.json"
    try:
        page: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: {error}") from error
    return page


def at(values: Any, path: str) -> Any:
    """What stands at ``a.b.c``; None where a part of the path is missing."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def filled(template: str, values: Any) -> str:
    """A template with its fields; of alternatives, separated by `` or ``, the first whose figures are all known."""
    texts = [_filled(alternative, values) for alternative in template.split(" or ")]
    return next((text for text in texts if UNKNOWN not in text), texts[0])


def _filled(template: str, values: Any) -> str:
    """A template with its fields; of the parts between arrows and semicolons one that lacks a figure is a dash."""
    parts = re.split(r"( -> |; )", template)
    for i in range(0, len(parts), 2):
        known = all(at(values, field[1]) is not None for field in FIELD.finditer(parts[i]))
        parts[i] = (
            FIELD.sub(lambda field: shown(at(values, field[1]), field[2]), parts[i]) if known else UNKNOWN
        )
    return "".join(parts) if any(part != UNKNOWN for part in parts[::2]) else UNKNOWN


def shown(value: Any, unit: str) -> str:
    """A figure in its unit. Raises ResultsError for a unit that is not known."""
    if unit not in UNITS:
        raise ResultsError(f"unknown unit {unit!r}; known: {', '.join(UNITS)}")
    return UNITS[unit](value)


def rows_of(page: dict[str, Any], table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows that a table names: ``run`` for all of a run, ``run.row`` for one."""
    for name in table["rows"]:
        run, _, row = name.partition(".")
        found = page["runs"][run]["rows"]
        if row and row not in found:
            raise ResultsError(f"table {table['id']}: no row {name}")
        yield from [found[row]] if row else found.values()


def table_lines(page: dict[str, Any], table: dict[str, Any]) -> list[str]:
    """A table in Markdown."""
    lines = [
        f"| {' | '.join(title for title, _ in table['columns'])} |",
        "|---" * len(table["columns"]) + "|",
    ]
    for row in rows_of(page, table):
        lines.append(f"| {' | '.join(filled(template, row) for _, template in table['columns'])} |")
    return lines


def note_text(page: dict[str, Any], note: str) -> str:
    """A note with its figures, each ``{run.row.path:unit}``. Raises ResultsError where one is missing."""
    rows = {name: run["rows"] for name, run in page["runs"].items()}
    for field in FIELD.finditer(note):
        if at(rows, field[1]) is None:
            raise ResultsError(f"no figure {field[1]}: {note}")
    return FIELD.sub(lambda field: shown(at(rows, field[1]), field[2]), note)


def page_text(name: str, page: dict[str, Any]) -> str:
    """The page of a JSON file, as Markdown."""
    lines = [f"<!-- Generated from {name}.json by tools/results_pages.py; edit that file. -->", ""]
    lines += [f"# {page['title']}", ""]
    for paragraph in page["about"]:
        lines += [note_text(page, paragraph), ""]
    told: set[str] = set()
    for table in page["tables"]:
        lines += [f"## {table['title']}", ""]
        for note in table.get("about", ()):
            lines += [note_text(page, note), ""]
        for run in dict.fromkeys(row.partition(".")[0] for row in table["rows"]):
            if run not in told:
                told.add(run)
                lines += run_lines(page["runs"][run])
        lines += [*table_lines(page, table), ""]
        for note in table.get("notes", ()):
            lines += [note_text(page, note), ""]
    return "\n".join(lines).rstrip() + "\n"


def run_lines(run: dict[str, Any]) -> list[str]:
    """Where a run's figures come from: its commands, machine and versions."""
    lines = ["```sh", *run["commands"], "```", ""] if run["commands"] else []
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return [*lines, f"Machine: {run['machine']}. Versions: {versions}.", ""]


def place_text(what: str, page: dict[str, Any]) -> str:
    """What belongs into a marked place: a table with line breaks around it, or a figure."""
    if FIELD.search(what):
        return note_text(page, what)
    for table in page["tables"] + page.get("excerpts", []):
        if table["id"] == what:
            return "\n" + "\n".join(table_lines(page, table)) + "\n"
    raise ResultsError(f"no table {what}")


def with_places(text: str, folder: Path = RESULTS) -> str:
    """A document with every marked place filled in again."""

    def filled_in(place: re.Match[str]) -> str:
        return place[1] + place_text(place[3], load(place[2], folder)) + place[5]

    return PLACE.sub(filled_in, text)


def documents() -> list[Path]:
    """Every document that is not itself a page of results."""
    found = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("models/*.md")]
    return sorted(path for path in found if path.parent != RESULTS)


def expected() -> dict[Path, str]:
    """The text that each page and each document with marked places should have."""
    texts = {
        path.with_suffix(".md"): page_text(path.stem, load(path.stem)) for path in RESULTS.glob("*.json")
    }
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if PLACE.search(text):
            texts[path] = with_places(text)
    return texts


def take(run: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """The ids of the rows that took their figures from an evaluation or a comparison."""
    taken = []
    for scene in result.get("scenes", [{"scene": result.get("scene"), "eval": result}]):
        evaluation, name = scene["eval"], Path(scene["scene"]).name
        if evaluation is None or name not in run["rows"]:
            continue
        row = run["rows"][name]
        row["eval"] = {
            **_kept(evaluation, KEPT),
            "raw": _kept(evaluation["raw"], KEPT),
            "latency_ms": _kept(evaluation["latency_ms"], ("p50", "p99")),
            "odometry": {k: _kept(v, KEPT_OF_MOTIONS) for k, v in evaluation["odometry"].items()},
        }
        for key in ("megabytes", "minutes", "training_minutes"):
            if key in scene:
                row[key] = scene[key]
        taken.append(name)
    if taken and result.get("versions"):
        run["versions"] = result["versions"]
    return taken


def commit() -> str:
    """The commit of the code that is checked out, shortened."""
    command = ("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _kept(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 when anything differs"
    )
    parser.add_argument(
        "--take", nargs=3, metavar=("PAGE", "RUN", "RESULT.json"), help="put in new figures first"
    )
    arguments = parser.parse_args()
    if arguments.take:
        name, run, result = arguments.take
        page = load(name)
        taken = take(page["runs"][run], json.loads(Path(result).read_text(encoding="utf-8")))
        if taken:
            page["runs"][run]["versions"]["commit"] = commit()
        print(f"{name}.json: {', '.join(taken) or 'nothing'} taken")
        (RESULTS / f"{name}.json").write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    differing = []
    for path, text in sorted(expected().items()):
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        differing.append(path.relative_to(REPOSITORY))
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
    for path in differing:
        print(f"{path}: {'differs from its JSON' if arguments.check else 'written'}")
    return int(arguments.check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
