"""``make demo``: drive a simulated place once, map it, localise a second drive live over ROS 2, show the result."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.cli.console import progress_bar
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import LocalizerError
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.evaluate import Evaluation, evaluate
from localizer_ros.evaluation.open_scene import open_scene
from localizer_ros.evaluation.report import write_report
from localizer_ros.mapping.build import build_scene
from localizer_ros.ros.conversions import pose_from_msg, stamp_ns
from localizer_ros.ros.latency import LiveRun, measure

# The second drive takes another path, at another time of day.
MAPPING_DRIVE: dict[str, Any] = {"drive": 0, "fps": 10.0, "duration_s": 45.0}
SECOND_DRIVE: dict[str, Any] = {"drive": 1, "fps": 15.0, "duration_s": 16.0, "light": 0.8}
# The recording's: by the machine's its images would be years old.
_BY_ITS_CLOCK = ("-p", "use_sim_time:=true")
# A regressor trained for minutes on a CPU, from nothing: the setting it needs, not the one it deserves.
METHODS: dict[str, dict[str, Any]] = {
    "hierarchical": {"method": "hierarchical"},
    "posenet": {
        "method": "posenet",
        "network": {"encoder": "mobilenet_v3_small", "width_px": 192, "height_px": 128, "hidden": 512},
        "training": {"epochs": 40, "time_budget_min": 3.0},
    },
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--method", choices=METHODS, default="hierarchical")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for drives, scene and report")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    started = time.monotonic()
    try:
        run(arguments.method, arguments.out)
    except LocalizerError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"done in {time.monotonic() - started:.0f} s")


def run(method: str, out: Path) -> None:
    """The whole demo.

    Args:
        method: a key of ``METHODS``.
        out: folder of everything it makes; that of an earlier run is replaced.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("drive1", "drive2", "scene", "report"):
        shutil.rmtree(out / name, ignore_errors=True)
    print("1/4 recording two drives through a simulated room")
    drives = [
        _record(out / name, settings)
        for name, settings in (("drive1", MAPPING_DRIVE), ("drive2", SECOND_DRIVE))
    ]
    print(f"2/4 mapping the first drive ({method})")
    with progress_bar() as progress:
        facts = build_scene(
            drives[0], "all", config_from_dict(MapConfig, METHODS[method]), out / "scene", progress=progress
        )
    print(f"    {facts['minutes']:.1f} min")
    print("3/4 localising the second drive live: node and player in processes of their own, over DDS")
    with progress_bar() as progress:
        live = measure(out / "scene", drives[1], ros_arguments=_BY_ITS_CLOCK, progress=progress)
    for line in live.latency.lines():
        print(f"    {line}")
    print("4/4 the same drive offline, measured")
    page, evaluation = _report(out, drives[1])
    errors_m, errors_deg = _live_errors(live, drives[1])
    (out / "report" / "live.json").write_text(
        json.dumps(
            {"median_t_m": errors_m, "median_r_deg": errors_deg, "latency": live.latency.to_dict()}, indent=2
        )
    )
    print(f"accuracy live:    {errors_m:.3f} m, {errors_deg:.2f} deg (medians of {len(live.poses)} poses)")
    offline, nearest = evaluation.metrics, evaluation.nearest_neighbour
    if offline.median_t_m is None or offline.median_r_deg is None:
        raise LocalizerError(f"no frame of the second drive was answered; see {page.resolve()}")
    print(f"accuracy offline: {offline.median_t_m:.3f} m, {offline.median_r_deg:.2f} deg")
    if nearest is not None and nearest.median_t_m is not None and nearest.median_r_deg is not None:
        print(f"nearest mapping image: {nearest.median_t_m:.3f} m, {nearest.median_r_deg:.2f} deg")
    print(f"report:  {page.resolve()}")


def _record(out: Path, settings: dict[str, Any]) -> FrameSource:
    source = SimulatedSource(config_from_dict(WorldConfig, settings))
    with progress_bar() as progress:
        write_bag(source, out, progress=lambda done, total: progress(f"recording {out.name}", done, total))
    return open_source(out)


def _report(out: Path, drive: FrameSource) -> tuple[Path, Evaluation]:
    with (
        open_scene(out / "scene", LocalizerConfig()) as opened,
        progress_bar() as progress,
    ):
        evaluation = evaluate(opened, drive, "all", progress=progress)
    return write_report(evaluation, out / "report", open_source(out / "drive1")), evaluation


def _live_errors(live: LiveRun, drive: FrameSource) -> tuple[float, float]:
    """Median errors (m, deg) of the poses the node published, against the ground truth of their stamps."""
    truth = {record.stamp_ns: record.T_map_cam for record in drive.records}
    pairs = [
        (T_true, pose_from_msg(message.pose))
        for message in live.poses
        if (T_true := truth.get(stamp_ns(message.header.stamp))) is not None
    ]
    if not pairs:
        raise LocalizerError("the node published no pose; its diagnostics say why")
    return (
        float(np.median([a.distance_to(b) for a, b in pairs])),
        float(np.degrees(np.median([a.angle_to(b) for a, b in pairs]))),
    )


if __name__ == "__main__":
    main()
