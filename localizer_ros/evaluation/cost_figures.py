"""Figures of what answers cost: the time of a frame, and the training of a network."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.figures import SMOOTHED, TRUE, new_figure, quiet_axes

# Columns of a training log, as a panel names them.
_CURVES = {
    "val_median_t_m": "pose",
    "val_median_r_deg": "pose",
    "val_vo_t_m": "motion",
    "val_vo_r_deg": "motion",
}


def latency_figure(evaluation: Evaluation) -> Figure:
    """Time of each stage and the distribution of the whole."""
    figure = new_figure(3.2)
    left, right = figure.subplots(1, 2)
    stages: dict[str, list[float]] = {}
    for frame in evaluation.frames:
        for name, value in frame.output.timings_ms.items() if frame.output is not None else ():
            stages.setdefault(name, []).append(value)
    # From the bottom up.
    shown = [(name, *np.percentile(values, (50, 99))) for name, values in stages.items()][::-1]
    for y, (_, p50, p99) in enumerate(shown):
        left.barh(y, p50, color=SMOOTHED, height=0.6)
        left.plot([p50, p99], [y, y], color=TRUE, lw=1.2)
        left.plot(p99, y, "|", color=TRUE, ms=9)
        left.annotate(
            f"{_ms(p50)} / {_ms(p99)}", (p99, y), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    left.set_yticks(range(len(shown)), [name for name, *_ in shown])
    if shown:
        left.set_xlim(0.0, 1.25 * max(p99 for *_, p99 in shown) or 1.0)
    left.set_xlabel("stage, bar = median, mark = p99 [ms]")
    latencies = np.array([f.latency_ms for f in evaluation.frames if f.latency_ms is not None])
    if latencies.size:
        top = float(np.percentile(latencies, 99.0)) * 1.3
        right.hist(np.minimum(latencies, top), bins=50, range=(0.0, top), color=SMOOTHED, alpha=0.85)
        p50, p99 = np.percentile(latencies, (50, 99))
        for value, name in ((p50, "median"), (p99, "p99")):
            right.axvline(value, color=TRUE, lw=1.0)
            right.annotate(
                f" {name} {value:.1f}", (value, 0.94), xycoords=("data", "axes fraction"), fontsize=8
            )
    right.set_xlabel("frame to answer [ms]")
    right.set_ylabel("frames")
    for ax in (left, right):
        quiet_axes(ax)
    return figure


def _ms(value: float) -> str:
    """Two digits, and never an exponent."""
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.3f}"


def training_figure(path: Path) -> Figure | None:
    """Losses and validation figures over the epochs; None without a readable ``training.csv``."""
    rows = _training_log(path)
    if len(rows) < 2 or "epoch" not in rows[0]:
        return None
    names = [
        name for name in dict.fromkeys(k for row in rows for k in row) if name not in ("epoch", "minutes")
    ]
    panels = {
        "loss": ["total"] if "total" in names else [],
        "its parts": [n for n in names if n != "total" and not n.startswith("val_")],
        "validation [m]": [n for n in names if n.startswith("val_") and n.endswith("_m")],
        "validation [deg]": [n for n in names if n.startswith("val_") and n.endswith("_deg")],
    }
    panels = {title: found for title, found in panels.items() if found}
    if not panels:
        return None
    figure = new_figure(3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        _draw_curves(ax, rows, found)
        ax.set_xlabel("epoch")
        ax.set_title(title, loc="left", fontsize=11)
        quiet_axes(ax)
    return figure


def _training_log(path: Path) -> list[dict[str, float]]:
    """What is known of each epoch; empty when the file cannot be read."""
    try:
        with path.open(newline="") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return []


def _draw_curves(ax: Axes, rows: list[dict[str, float]], names: list[str]) -> None:
    """Columns of a training log over the epochs; several are named at their ends."""
    curves = {name: [(row["epoch"], row[name]) for row in rows if name in row] for name in names}
    for name, points in curves.items():
        (line,) = ax.plot(*zip(*points, strict=True), ".-", lw=1.3, ms=4)
        if len(names) > 1:
            ax.annotate(
                _CURVES.get(name, name.removeprefix("val_").replace("_", " ")),
                points[-1],
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=line.get_color(),
            )
    if len(names) > 1:
        # Room for the names.
        ax.set_xlim(right=rows[-1]["epoch"] + 0.55 * (rows[-1]["epoch"] - rows[0]["epoch"]))
        # Curves of one panel differ by orders of magnitude.
        if min(value for points in curves.values() for _, value in points) > 0.0:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
