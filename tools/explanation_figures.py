"""The figures of docs/explanation/maps.md and uncertainty.md, from a simulated hall.

localizer simulate hall1 --set place=hall --set duration_s=40 --set fps=5
localizer simulate hall2 --set place=hall --set duration_s=15 --set fps=10 --set drive=1 --set offset_m=1.5
localizer map hall1 --out scenes/hall
localizer eval scenes/hall hall2 --report report
python tools/explanation_figures.py scenes/hall hall2 report --out docs/images
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import chi2

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.types import Array, LocalizerError
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.evaluation.figures import MAPPED, RAW, SMOOTHED, TRUE, quiet_axes
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.map_scene import MapScene

RETRIEVED = 10
KEYFRAME, SEEN = "#5b8f86", "#9cc3ee"
POSE = "#c62828"


def map_figure(scene_path: Path, recording: FrameSource, index: int) -> Figure:
    """A query in a map, from above: the keyframes retrieved, the points that they saw, the pose found."""
    scene = MapScene.open(scene_path)
    frame = recording.read(index)
    view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine=True)
    found, _ = scene.similar_keyframes(scene.global_descriptor(frame, view), RETRIEVED)
    localizer = open_localizer(scene_path, RunConfig())
    try:
        answer = localizer.process(frame)
    finally:
        localizer.close()
    if answer.absolute is None:
        raise LocalizerError(f"frame {index} is not recognised: {answer.reason}")
    point_map = scene.point_map
    keyframes = scene.database.keyframe[found].astype(np.int64)
    seen = np.unique(point_map.observation_point[point_map.observations_of(keyframes)])
    figure = Figure(figsize=(8.0, 6.2), facecolor="white", layout="constrained")
    ax = figure.subplots()
    low, high = np.percentile(point_map.points[:, :2], [[1], [99]], axis=0)[:, 0]
    size_m = float(np.max(high - low))
    ax.plot(*point_map.points[:, :2].T, ".", ms=1.5, color=MAPPED, label="map points")
    ax.plot(*point_map.points[seen, :2].T, ".", ms=1.5, color=SEEN, label="points that these saw")
    truth = np.array([record.T_map_cam.t for record in recording.records if record.T_map_cam is not None])
    _cameras(ax, point_map.T_map_cam, 0.02 * size_m, KEYFRAME, "keyframes", 0.7)
    _cameras(
        ax, scene.database.T_map_cam[found], 0.03 * size_m, SMOOTHED, f"the {len(found)} most similar", 1.6
    )
    ax.plot(*truth[:, :2].T, color=TRUE, lw=1.4, label="true path of the second drive")
    _cameras(ax, answer.absolute.T_map_cam.matrix()[None], 0.06 * size_m, POSE, "pose found", 2.4)
    ax.set_xlim(low[0] - 0.05 * size_m, high[0] + 0.05 * size_m)
    ax.set_ylim(low[1] - 0.05 * size_m, high[1] + 0.05 * size_m)
    ax.set_aspect("equal")
    ax.set_xlabel("x [m]")
    ax.set_ylabel("y [m]")
    quiet_axes(ax)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, markerscale=3)
    return figure


def _cameras(ax: Axes, T_map_cam: Array, size_m: float, colour: str, label: str, width: float) -> None:
    """Triangles from above, the tip where the camera is."""
    for number, T in enumerate(T_map_cam):
        tip = T[:3, 3]
        left, right = (tip + size_m * (T[:3, 2] + side * 0.5 * T[:3, 0]) for side in (-1.0, 1.0))
        line = np.stack([tip, left, right, tip])[:, :2]
        ax.plot(*line.T, color=colour, lw=width, label=label if number == 0 else None)


def uncertainty_figure(report: Path) -> Figure:
    """Errors of a drive with the published sigma, and how the normalised errors are distributed."""
    with (report / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> Array:
        return np.array([float(row[name]) if row[name] else np.nan for row in rows])

    time_s = 1e-9 * (column("stamp_ns") - column("stamp_ns")[0])
    figure = Figure(figsize=(8.0, 6.2), facecolor="white", layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1.2, 1.0))
    above.fill_between(
        time_s, 0.0, 300.0 * column("sigma_m"), color=SMOOTHED, alpha=0.15, lw=0.0, label="published 3 sigma"
    )
    above.plot(time_s, 100.0 * column("raw_error_m"), ".", ms=4, color=RAW, label="raw answer")
    above.plot(time_s, 100.0 * column("error_m"), color=SMOOTHED, lw=1.6, label="localizer")
    above.set_ylim(0.0, 1.25 * 100.0 * float(np.nanmax([*column("error_m"), *(3.0 * column("sigma_m"))])))
    above.set_xlabel("time [s]")
    above.set_ylabel("error of position [cm]")
    above.legend(frameon=False, ncols=3, loc="upper left")
    nees = np.sort(column("nees")[np.isfinite(column("nees"))])
    x = np.linspace(0.0, 30.0, 300)
    below.plot(x, chi2.cdf(x, 6), color=TRUE, lw=1.4, label="honest: chi-square, 6 degrees of freedom")
    share = np.arange(1, len(nees) + 1) / len(nees)
    label = f"localizer, median {np.median(nees):.1f}; {np.mean(nees > x[-1]):.0%} beyond {x[-1]:.0f}"
    below.plot(nees, share, color=SMOOTHED, lw=1.8, label=label)
    below.axvline(float(chi2.ppf(0.5, 6)), color=MAPPED, lw=1.0, zorder=0)
    below.set_xlim(0.0, x[-1])
    below.set_xlabel("normalised squared error (NEES)")
    below.set_ylabel("share of frames below")
    below.legend(frameon=False, loc="lower right")
    for ax in (above, below):
        quiet_axes(ax)
    return figure


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("report", type=Path, help="of `localizer eval --report`")
    parser.add_argument("--frame", type=int, default=40, help="index of the query in the figure of maps")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recording = open_source(arguments.source)
    map_figure(arguments.scene, recording, arguments.frame).savefig(arguments.out / "maps.png", dpi=100)
    uncertainty_figure(arguments.report).savefig(arguments.out / "uncertainty.png", dpi=100)


if __name__ == "__main__":
    main()
