"""How far off the mapped path, and in what light, a map still localises: the tables of docs/results/simulated.md.

Maps drive 0 of a simulated room by day, then localises drive 1, which takes another path, at offsets, angles and
lights until the method fails. The same as `localizer map` and `localizer eval` of one world.yaml after the other.
Conditions of `--table path` are in painted light, those of `--table light` in that of windows and lamps, on a map of
their own that is made in the light of windows.

A condition whose JSON is in OUT already is not measured again.

    .venv/bin/python tools/simulated_table.py OUT [--place room] [--table light]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.cli.console import progress_bar
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict, load_config
from localizer_ros.core.limits import WRONG_DEG, WRONG_M
from localizer_ros.core.types import ConfigError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.evaluation.evaluate import Evaluation, evaluate
from localizer_ros.evaluation.off_path import view_change
from localizer_ros.evaluation.open_scene import open_scene
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.bundle import Scene, is_scene

MAPPING = {"drive": 0, "fps": 10.0, "duration_s": 40.0}
SECOND_DRIVE = {"drive": 1, "fps": 10.0, "duration_s": 15.0}
OFFSETS_M = (0.3, 0.6, 1.0, -0.6, -1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
ANGLES_DEG = (20.0, 40.0, 60.0, 80.0, -20.0, -40.0, -60.0, 120.0)
LIGHTS = (0.5, 0.15, 0.05, 0.02, 0.01, 1.5, 2.5)
TOGETHER = (
    {"offset_m": 0.6, "offset_deg": 40.0},
    {"offset_m": 1.0, "offset_deg": 60.0},
    {"offset_m": 0.6, "light": 0.15},
    {"offset_deg": 40.0, "light": 0.15},
    {"offset_m": 0.6, "offset_deg": 40.0, "light": 0.15},
    {"offset_m": 1.0, "offset_deg": 40.0, "light": 0.05},
    {"reverse": True},
)
DAY: dict[str, Any] = {"lighting": "windows"}
NIGHT: dict[str, Any] = {"lighting": "lamps", "light": 0.15}
# Twice the frequency of the mains, which is never quite the 50 Hz that it should be.
FLICKER: dict[str, Any] = {"flicker_hz": 99.7}
IN_WINDOWS_AND_LAMPS: tuple[dict[str, Any], ...] = (
    DAY,
    *({"lighting": "lamps", "light": light} for light in (0.5, 0.15, 0.05, 0.02, 0.01)),
    {**NIGHT, "lamp_layout": 1},
    {**NIGHT, "lamp_layout": 2},
    {**NIGHT, **FLICKER},
    {**NIGHT, "exposure_step_stops": 1.0},
    {**DAY, "moved_furniture": 0.2},
    {**DAY, "moved_furniture": 0.5},
    {**DAY, "people": 4},
    {
        **{"lighting": "lamps", "light": 0.05, "lamp_layout": 1, **FLICKER},
        **{"exposure_step_stops": 1.0, "moved_furniture": 0.2, "people": 4},
    },
)
# Every fifth frame is searched by itself, with nothing known of the others.
ALONE = {"fps": 2.0}
GRID_M = (0.0, 0.25, 0.5, 1.0, 1.5)
GRID_DEG = (0.0, 10.0, 30.0, 50.0, 70.0)
FEWEST_IN_A_CELL = 10
SEARCH_ONLY = ("smoother.kind=none", "tracking.enabled=false")
COLUMNS = (
    *("drive 1", "from the map", "answered", "median", "5 cm/5 deg", "10 cm/5 deg", "50 cm/5 deg", "wrong"),
    *("raw wrong", "each frame by itself: answered", "median", "wrong"),
)


@dataclass(frozen=True)
class Condition:
    """Settings of a drive beside those of ``SECOND_DRIVE``."""

    settings: dict[str, Any]

    @property
    def name(self) -> str:
        words = [
            value if isinstance(value, str) else f"{key.removeprefix('offset_')}={value:g}"
            for key, value in self.settings.items()
        ]
        return " ".join(words) or "as mapped"

    def source(self, place: str, **more: Any) -> SimulatedSource:
        world = config_from_dict(WorldConfig, {"place": place, **SECOND_DRIVE, **self.settings, **more})
        return SimulatedSource(world, Path(f"{place}, drive 1, {self.name}"))


def conditions(table: str) -> list[Condition]:
    """What is measured for a table, in order."""
    if table == "light":
        return [Condition(dict(settings)) for settings in IN_WINDOWS_AND_LAMPS]
    offsets = [Condition({"offset_m": o}) for o in OFFSETS_M]
    angles = [Condition({"offset_deg": a}) for a in ANGLES_DEG]
    lights = [Condition({"light": x}) for x in LIGHTS]
    return [Condition({}), *offsets, *angles, *lights, *(Condition(dict(s)) for s in TOGETHER)]


def localised(scene: Scene, source: SimulatedSource, settings: Iterable[str] = ()) -> Evaluation:
    """One drive through the localizer."""
    config = load_config(LocalizerConfig, None, settings)
    with open_scene(scene.path, config) as opened:
        return evaluate(opened, source, "all")


def wrong_frames(run: Evaluation, how: str, kinds: Sequence[str] = ("smoothed", "raw")) -> list[str]:
    """One line for each wrong answer: which frame, how far off, and what the localizer said of it."""
    lines = []
    for frame, smoothed, raw in zip(run.frames, run.answers(), run.answers("raw"), strict=True):
        for kind, answer in (("smoothed", smoothed), ("raw", raw)):
            if kind not in kinds or not answer.wrong or frame.output is None:
                continue
            said = frame.output.absolute
            evidence = ""
            if kind == "raw" and said is not None:
                evidence = f", {said.source}, {said.inliers} inliers, confidence {said.confidence or 0.0:.2f}"
            reason = f" ({frame.output.reason})" if frame.output.reason else ""
            lines.append(
                f"{how} {frame.record.name} {kind}: {answer.error_m:.2f} m, {answer.error_deg:.1f} deg{evidence}; "
                f"{frame.output.status.value}{reason}"
            )
    return lines


def measured(scene: Scene, place: str, condition: Condition) -> dict[str, Any]:
    """Figures of one condition; raises ConfigError where the robot would hit something."""
    tracked = localised(scene, condition.source(place))
    alone = localised(scene, condition.source(place, **ALONE), SEARCH_ONLY)
    mapping = tracked.mapping_poses
    away = np.array(
        [view_change(r.T_map_cam, mapping)[1:] for r in tracked.source.records if r.T_map_cam is not None]
    )
    return {
        "name": condition.name,
        "away_m": float(np.median(away[:, 0])),
        "away_deg": float(np.median(away[:, 1])),
        "smoothed": tracked.metrics.to_dict(),
        "raw": tracked.raw.to_dict(),
        "alone": alone.raw.to_dict(),
        "status": tracked.to_dict()["status"],
        "wrong": [*wrong_frames(tracked, "tracked"), *wrong_frames(alone, "by itself", ("raw",))],
        # Metres and degrees off the map, and of the error; None without an answer.
        "frames": [
            [m, deg, *((None, None) if a.T_map_cam is None else (a.error_m, a.error_deg))]
            for (m, deg), a in zip(away.tolist(), tracked.answers(), strict=True)
        ],
    }


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    smoothed, raw, alone = found["smoothed"], found["raw"], found["alone"]

    def median(metrics: dict[str, Any]) -> str:
        if metrics["median_t_m"] is None:
            return "-"
        return f"{100.0 * metrics['median_t_m']:.2f} cm / {metrics['median_r_deg']:.3f} deg"

    def wrong(metrics: dict[str, Any]) -> str:
        return str(metrics["wrong"] or 0)

    recalls = [f"{100.0 * smoothed['recall'][k]:.0f} %" for k in ("5cm_5deg", "10cm_5deg", "50cm_5deg")]
    cells = (
        found["name"],
        f"{found['away_m']:.2f} m, {found['away_deg']:.0f} deg",
        f"{smoothed['answered']}/{smoothed['frames']}",
        median(smoothed),
        *recalls,
        wrong(smoothed),
        wrong(raw),
        f"{alone['answered']}/{alone['frames']}",
        median(alone),
        wrong(alone),
    )
    return f"| {' | '.join(cells)} |"


def result_row(found: dict[str, Any]) -> dict[str, Any]:
    """A row of docs/results/simulated.json, rounded as it is shown there."""

    def metrics(of: dict[str, Any]) -> dict[str, Any]:
        medians = {"median_t_m": 4, "median_r_deg": 3}
        rounded = {
            key: None if of[key] is None else round(of[key], digits) for key, digits in medians.items()
        }
        return {"frames": of["frames"], "answered": of["answered"], **rounded, "wrong": of["wrong"] or 0}

    recall = {k: round(found["smoothed"]["recall"][k], 2) for k in ("5cm_5deg", "10cm_5deg", "50cm_5deg")}
    return {
        "name": found["name"],
        "away_m": round(found["away_m"], 2),
        "away_deg": round(found["away_deg"], 0),
        "smoothed": {**metrics(found["smoothed"]), "recall": recall},
        "raw": {"wrong": found["raw"]["wrong"] or 0},
        "alone": metrics(found["alone"]),
    }


def row_name(condition: str) -> str:
    """The key of a condition's row."""
    return re.sub(r"[^A-Za-z0-9]+", "_", condition.replace("=-", "_minus"))


def grid(found: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of the table of recall by how far each frame itself is off the nearest mapping image, drives by day."""
    frames = [frame for each in found if "light" not in each["name"] for frame in each["frames"]]
    columns = [(low, high) for low, high in pairwise((*GRID_DEG, 181.0))]
    lines = [
        f"| | {' | '.join(f'{low:g}-{high:g} deg' for low, high in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for low_m, high_m in pairwise((*GRID_M, 100.0)):
        cells = []
        for low, high in columns:
            inside = [f for f in frames if low_m <= f[0] < high_m and low <= f[1] < high]
            if len(inside) < FEWEST_IN_A_CELL:
                cells.append("-")
                continue
            answered = [f for f in inside if f[2] is not None]
            good = sum(f[2] <= 0.5 and f[3] <= 5.0 for f in answered)
            fine = sum(f[2] <= 0.05 and f[3] <= 5.0 for f in answered)
            wrong = sum(f[2] > WRONG_M or f[3] > WRONG_DEG for f in answered)
            cells.append(
                f"{100 * fine / len(inside):.0f} / {100 * good / len(inside):.0f} / "
                f"{100 * wrong / len(inside):.1f} % of {len(inside)}"
            )
        name = f"{low_m:g}-{high_m:g} m" if high_m < 100.0 else f"over {low_m:g} m"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "out",
        type=Path,
        help="folder of the scene, of one JSON file a condition, of table.md, and of rows.json for docs/results",
    )
    parser.add_argument("--place", default="room", choices=("room", "corridor", "hall"))
    parser.add_argument("--table", default="path", choices=("path", "light"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the mapping")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    scene_path = out / "scene"
    if not is_scene(scene_path):
        light = DAY if arguments.table == "light" else {}
        world = config_from_dict(WorldConfig, {"place": arguments.place, **MAPPING, **light})
        source = SimulatedSource(world, Path(f"{arguments.place}, drive 0"))
        with progress_bar() as progress:
            build_scene(
                source, "all", load_config(MapConfig, None, arguments.set), scene_path, progress=progress
            )
    scene = Scene.load(scene_path)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    wrong: list[str] = []
    everything = []
    for condition in conditions(arguments.table):
        file = out / f"{condition.name.replace(' ', '_')}.json"
        if not file.is_file():
            try:
                found = measured(scene, arguments.place, condition)
            except ConfigError as error:
                print(f"{condition.name}: {error}", flush=True)
                continue
            file.write_text(json.dumps(found, indent=2) + "\n")
        found = json.loads(file.read_text())
        everything.append(found)
        lines.append(row(found))
        wrong.extend(f"- {condition.name}: {line}" for line in found["wrong"])
        print(lines[-1], flush=True)
        for line in found["wrong"]:
            print(f"    {line}", flush=True)
    by_distance = grid(everything) if arguments.table == "path" else []
    (out / "table.md").write_text("\n".join([*lines, "", *by_distance, "", *wrong]) + "\n")
    rows = {row_name(found["name"]): result_row(found) for found in everything}
    (out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
