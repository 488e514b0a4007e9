"""All scenarios of test/scenarios, in simulated time and over DDS, and the page of what came of them.

    python tools/scenarios.py [--no-live] [--no-page] [--only NAME ...]

Maps the place of test/scenarios/place, plays every scenario, writes docs/results/scenarios.json and its page, and ends
with exit code 1 when one does not hold, or holds though it is marked as known to fail.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import results_pages

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.datasets.simulated import open_recording
from localizer_ros.evaluation.environment import versions
from localizer_ros.mapping.build import build_scene
from localizer_ros.ros.scenario.cycles import Cycles, cycle
from localizer_ros.ros.scenario.report import chosen, total
from localizer_ros.ros.scenario.run import Result, run

FOLDER = results_pages.REPOSITORY / "test" / "scenarios"
PLACE = FOLDER / "place"
COLUMNS = [
    ["scenario", "{name:text}"],
    ["what happens", "{about:text}"],
    ["outcome", "{outcome:text}"],
    ["answered", "{answered:count} of {frames:count}"],
    ["worst pose", "{worst_m:m}, {worst_deg:whole_deg}"],
    ["named after, s", "{named_s:ratio}"],
    ["right again after, s", "{recovered_s:ratio}"],
]
CYCLE_COLUMNS = [
    ["cycles", "{cycles:count}"],
    ["impossible transitions refused", "{refused:count}"],
    ["poses", "{poses:count}"],
    ["memory, first quarter to end", "{growth_mb:number} MB"],
]
CYCLES, MOST_MB = 20, 5.0
ABOUT = (
    "Faults on a robot's streams, and whether the node stood them: never down, named in its diagnostics in time, no "
    "pose wrong by more than half a metre or ten degrees that its own three sigma do not cover, right again within a "
    "second of the fault's end (two after the robot was carried away), transforms silent while LOST and never OK while "
    "they are silent. The scenarios lie in `test/scenarios`; [their form](../reference/scenarios.md), [trying "
    "them on a robot of your own](../howto/try-the-faults.md).",
    "`known` marks what the node is known not to stand yet, with the reason in the scenario.",
)


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-live", action="store_true", help="in simulated time only")
    parser.add_argument("--no-page", action="store_true", help="write nothing")
    parser.add_argument("--only", nargs="+", default=(), help="these alone; the others keep their figures")
    arguments = parser.parse_args()
    scenarios = chosen(sorted(FOLDER.glob("*.yaml")), arguments.only)
    results: dict[str, list[Result]] = {}
    cycles: Cycles | None = None
    with tempfile.TemporaryDirectory() as work:
        scene = Path(work) / "scene"
        config = load_config(MapConfig, PLACE / "map.yaml")
        build_scene(open_recording(PLACE / "mapped.yaml"), "all", config, scene)
        for live in (False,) if arguments.no_live else (False, True):
            name = "live" if live else "simulated"
            results[name] = told(run(scene, open_recording(PLACE / "driven.yaml"), scenarios, live))
            print(f"{name}: {total(results[name])}")
        if not (arguments.no_live or arguments.only):
            cycles = cycle(scene, open_recording(PLACE / "driven.yaml"), CYCLES)
            print(
                f"{cycles.cycles} cycles of the lifecycle, memory {cycles.growth_mb:+.1f} MB",
                *cycles.wrong,
                sep="\n",
            )
    if not arguments.no_page:
        write_page(results, cycles)
    good = cycles is None or (not cycles.wrong and cycles.growth_mb <= MOST_MB)
    return 0 if good and all(result.as_expected for each in results.values() for result in each) else 1


def told(results: Iterable[Result]) -> list[Result]:
    """The results, printed as they come."""
    kept = []
    for result in results:
        print("\n".join(result.lines()), flush=True)
        kept.append(result)
    return kept


def write_page(results: dict[str, list[Result]], cycles: Cycles | None) -> None:
    """docs/results/scenarios.json, and all pages again; what was not run keeps its figures."""
    path = results_pages.RESULTS / "scenarios.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}
    for name, each in results.items():
        known = runs.get(name, {}).get("rows", {})
        new = {result.name: row(result) for result in each}
        names = chosen(sorted(FOLDER.glob("*.yaml")), ())
        runs[name] = a_run({key: (known | new)[key] for key in names if key in known | new})
    if cycles is not None:
        runs["cycles"] = a_run({"cycles": {**cycles.to_dict(), "poses": sum(cycles.answered)}})
    tables = [
        {"id": name, "title": title, "rows": [name], "columns": columns}
        for name, title, columns in (
            ("simulated", "In simulated time", COLUMNS),
            ("live", "Over DDS, the node in a process of its own", COLUMNS),
            ("cycles", "The lifecycle again and again", CYCLE_COLUMNS),
        )
        if name in runs
    ]
    page = {
        "title": "Scenarios: faults that the node must stand",
        "about": list(ABOUT),
        "runs": runs,
        "tables": tables,
    }
    path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for page_path, text in results_pages.expected().items():
        page_path.write_text(text, encoding="utf-8")


def a_run(rows: dict[str, Any]) -> dict[str, Any]:
    """Figures, and where they come from."""
    return {
        "commands": ["make scenarios"],
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "versions": {**versions(), "commit": results_pages.commit()},
        "rows": rows,
    }


def row(result: Result) -> dict[str, Any]:
    """What the page shows of a result."""
    keys = (
        "name",
        "about",
        "outcome",
        "frames",
        "answered",
        "worst_m",
        "worst_deg",
        "named_s",
        "recovered_s",
    )
    values = result.to_dict()
    return {key: values.get(key) for key in keys}


if __name__ == "__main__":
    sys.exit(main())
