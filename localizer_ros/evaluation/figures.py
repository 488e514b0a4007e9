"""Figures of an evaluation's report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation import metrics as m
from localizer_ros.evaluation.evaluate import Evaluation, sigmas

Array = NDArray[np.float64]

TRUE, SMOOTHED, RAW, NEIGHBOUR, MAPPED = "#22262b", "#1667c7", "#e8833a", "#3a9d6e", "#c3c9d0"
_STYLE = {"facecolor": "white", "layout": "constrained"}
# Columns of a training log, as a panel names them.
_CURVES = {
    "val_median_t_m": "pose",
    "val_median_r_deg": "pose",
    "val_vo_t_m": "motion",
    "val_vo_r_deg": "motion",
}


def trajectory_figure(evaluation: Evaluation) -> Figure:
    """Map, truth, estimate and raw answers from above and from the side."""
    answers, raw = evaluation.answers(), evaluation.answers("raw")
    mapping = evaluation.mapping_poses
    poses = [a.T_map_true or a.T_map_cam for a in answers]
    views = map_views([T for T in (*poses, *mapping) if T is not None])
    figure = Figure(figsize=(11.0, 5.6), **_STYLE)  # type: ignore[arg-type]
    axes = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    lines = {"true": _path(answers, True), "raw": _path(raw, False), "smoothed": _path(answers, False)}
    # A wild answer must not shrink the rest of the picture to a dot.
    reference = [T.t for T in (*mapping, *(a.T_map_true for a in answers)) if T is not None]
    wild = 0
    if reference:
        low, high = np.min(reference, axis=0), np.max(reference, axis=0)
        margin = max(0.5 * float(np.max(high - low)), 0.5)
        for line in (lines["raw"], lines["smoothed"]):
            with np.errstate(invalid="ignore"):
                outside = np.any((line < low - margin) | (line > high + margin), axis=1)
            line[outside] = np.nan
            wild = int(outside.sum())
    for ax, (title, across, up) in zip(axes, views, strict=True):
        if mapping:
            t = np.stack([T.t for T in mapping])
            ax.plot(t[:, across], t[:, up.axis], ".", color=MAPPED, ms=4, label="mapping images", zorder=1)
        for kind, colour, label, style in (
            ("raw", RAW, "raw answer", {"ls": "", "marker": ".", "ms": 3.5, "alpha": 0.55}),
            ("true", TRUE, "ground truth", {"lw": 2.0}),
            ("smoothed", SMOOTHED, "localizer", {"lw": 1.5}),
        ):
            line = lines[kind]
            if not np.all(np.isnan(line)):
                ax.plot(line[:, across], line[:, up.axis], color=colour, label=label, zorder=3, **style)
        if up.flipped:
            ax.invert_yaxis()
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set_title(title, loc="left", fontsize=11)
        ax.set_xlabel(f"{'xyz'[across]} [m]")
        ax.set_ylabel(f"{'xyz'[up.axis]} [m]")
        quiet_axes(ax)
    if wild:
        axes[0].annotate(
            f"{wild} answers of the localizer are far outside", (0.02, 0.02), xycoords="axes fraction"
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def error_figure(evaluation: Evaluation) -> Figure:
    """Error of position and rotation over time, with the band the covariance claims."""
    answers, raw = evaluation.answers(), evaluation.answers("raw")
    seconds, breaks = _time_axis(answers)
    figure = Figure(figsize=(11.0, 5.6), **_STYLE)  # type: ignore[arg-type]
    axes = figure.subplots(2, 1, sharex=True)
    claimed = np.array([[v if v is not None else np.nan for v in sigmas(a.covariance)] for a in answers])
    for ax, column, unit in ((axes[0], 0, "position [m]"), (axes[1], 1, "rotation [deg]")):
        errors = [np.array([(a.error_m, a.error_deg)[column] for a in each]) for each in (answers, raw)]
        band = 3.0 * claimed[:, column]
        for first, last in breaks:
            part = slice(first, last)
            named = first == 0
            ax.fill_between(
                seconds[part],
                0.0,
                band[part],
                color=SMOOTHED,
                alpha=0.13,
                lw=0,
                label="3 sigma of the covariance" if named else None,
            )
            ax.plot(
                seconds[part],
                errors[1][part],
                ".",
                ms=3,
                color=RAW,
                alpha=0.6,
                label="raw" if named else None,
            )
            ax.plot(
                seconds[part], errors[0][part], color=SMOOTHED, lw=1.4, label="localizer" if named else None
            )
            if not named:
                ax.axvline(seconds[first] - 0.5, color="#d0d5da", lw=0.8, ls=":")
        # One wild frame must not flatten the rest, and the band may be far wider than the errors.
        shown = np.concatenate([e[np.isfinite(e)] for e in errors])
        if shown.size:
            top = 1.25 * float(np.percentile(shown, 99.0))
            ax.set_ylim(0.0, max(top, 1e-3))
            for each, colour in zip(errors, (SMOOTHED, RAW), strict=True):
                over = np.flatnonzero(each > top)
                if over.size:  # an empty line of markers would take room at the origin of the figure
                    ax.plot(seconds[over], np.full(len(over), 0.97 * top), "^", color=colour, ms=4)
        else:
            ax.text(0.5, 0.5, "no ground truth", ha="center", va="center", transform=ax.transAxes)
        missing = np.array([a.T_map_cam is None for a in answers])
        for at in seconds[missing]:
            ax.axvline(at, ymax=0.04, color="#c0392b", lw=1.0)
        ax.set_ylabel(unit)
        quiet_axes(ax)
    if any(a.T_map_cam is None for a in answers):
        axes[1].plot([], [], color="#c0392b", lw=1.0, label="no answer")
    axes[1].set_xlabel("time [s], sequences side by side")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def cumulative_figure(evaluation: Evaluation) -> Figure:
    """Share of all frames whose error is at most x; a frame without an answer never counts."""
    figure = Figure(figsize=(11.0, 3.8), **_STYLE)  # type: ignore[arg-type]
    axes = figure.subplots(1, 2, sharey=True)
    runs = [("localizer", SMOOTHED, evaluation.answers()), ("raw", RAW, evaluation.answers("raw"))]
    if evaluation.nearest_neighbour is not None:
        runs.append(("nearest neighbour", NEIGHBOUR, evaluation.answers("nearest_neighbour")))
    marks = (sorted({t for t, _ in m.RECALLS.values()}), sorted({r for _, r in m.RECALLS.values()}))
    for column, (ax, unit) in enumerate(
        zip(axes, ("position error [m]", "rotation error [deg]"), strict=True)
    ):
        right = 0.0
        for label, colour, answers in runs:
            judged = [a for a in answers if a.T_map_true is not None]
            errors = np.sort([(a.error_m, a.error_deg)[column] for a in judged if a.T_map_cam is not None])
            if not errors.size:
                continue
            right = max(right, float(np.percentile(errors, 97.0)))
            share = 100.0 * np.arange(1, len(errors) + 1) / len(judged)
            ax.step(
                np.append(0.0, errors), np.append(0.0, share), where="post", color=colour, label=label, lw=1.8
            )
        for mark in marks[column]:
            ax.axvline(mark, color="#d0d5da", lw=0.8, ls=":", zorder=0)
        ax.set_xlim(0.0, max(right, marks[column][-1]) * 1.05)
        ax.set_ylim(0.0, 102.0)
        ax.set_xlabel(unit)
        quiet_axes(ax)
    axes[0].set_ylabel("frames [%]")
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, loc="lower right")
    return figure


def off_path_figure(evaluation: Evaluation) -> Figure | None:
    """Error against how far the view is off the nearest mapping pose; None without poses to compare."""
    mapping = evaluation.mapping_poses
    judged = [a for a in evaluation.answers() if a.T_map_true is not None]
    if not mapping or not judged:
        return None
    changes = np.array([m.view_change(a.T_map_true, mapping)[1:] for a in judged if a.T_map_true is not None])
    errors = np.array([[a.error_m, a.error_deg] for a in judged])
    figure = Figure(figsize=(11.0, 6.2), **_STYLE)  # type: ignore[arg-type]
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, unit in enumerate(("position error [m]", "rotation error [deg]")):
        for column, (label, edges) in enumerate(
            (
                ("distance to the mapping pose most alike [m]", m.OFF_PATH_M),
                ("angle to the mapping pose most alike [deg]", m.OFF_PATH_DEG),
            )
        ):
            ax = axes[row, column]
            x, y = changes[:, column], errors[:, row]
            answered = np.isfinite(y)
            ax.plot(x[answered], y[answered], ".", color=SMOOTHED, ms=4, alpha=0.35)
            top = 1.1 * float(np.percentile(y[answered], 99.0)) if answered.any() else 1.0
            if not answered.all():
                ax.plot(x[~answered], np.full(int((~answered).sum()), 0.97 * top), "x", color="#c0392b", ms=5)
            for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
                inside = answered & (x >= low) & (x < high)
                if np.count_nonzero(inside) >= 5:
                    right = min(high, float(x.max()))
                    ax.plot(
                        [low, right], [np.median(y[inside])] * 2, color=TRUE, lw=2.5, solid_capstyle="butt"
                    )
            ax.set_ylim(0.0, top)
            ax.set_xlim(0.0, max(float(x.max()) * 1.05, 1e-3))
            if row == 1:
                ax.set_xlabel(label)
            if column == 0:
                ax.set_ylabel(unit)
            quiet_axes(ax)
    return figure


def latency_figure(evaluation: Evaluation) -> Figure:
    """Time of each stage and the distribution of the whole."""
    figure = Figure(figsize=(11.0, 3.2), **_STYLE)  # type: ignore[arg-type]
    left, right = figure.subplots(1, 2)
    stages: dict[str, list[float]] = {}
    for frame in evaluation.frames:
        for name, value in frame.output.timings_ms.items() if frame.output is not None else ():
            stages.setdefault(name, []).append(value)
    shown = [(name, *np.percentile(values, (50, 99))) for name, values in stages.items()]
    for y, (name, p50, p99) in enumerate(reversed(shown)):
        left.barh(y, p50, color=SMOOTHED, height=0.6)
        left.plot([p50, p99], [y, y], color=TRUE, lw=1.2)
        left.plot(p99, y, "|", color=TRUE, ms=9)
        left.annotate(
            f"{p50:.2g} / {p99:.2g}", (p99, y), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
        del name
    left.set_yticks(range(len(shown)), [name for name, *_ in reversed(shown)])
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


def training_figure(path: Path) -> Figure | None:
    """Losses and validation figures over the epochs; None without a readable ``training.csv``."""
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return None
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
    figure = Figure(figsize=(11.0, 3.4), **_STYLE)  # type: ignore[arg-type]
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        curves = {name: [(row["epoch"], row[name]) for row in rows if name in row] for name in found}
        for name, points in curves.items():
            (line,) = ax.plot(*zip(*points, strict=True), ".-", lw=1.3, ms=4)
            if len(found) > 1:
                label = _CURVES.get(name, name.removeprefix("val_").replace("_", " "))
                ax.annotate(
                    label,
                    points[-1],
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=line.get_color(),
                )
        ax.set_xlabel("epoch")
        ax.set_title(title, loc="left", fontsize=11)
        quiet_axes(ax)
        if len(found) > 1:
            # Room for the names.
            ax.set_xlim(right=rows[-1]["epoch"] + 0.55 * (rows[-1]["epoch"] - rows[0]["epoch"]))
            # Curves of one panel differ by orders of magnitude.
            if min(value for points in curves.values() for _, value in points) > 0.0:
                ax.set_yscale("log")
                ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


@dataclass(frozen=True)
class Up:
    """Map axis drawn upwards.

    Attributes:
        axis: 0, 1 or 2.
        flipped: its negative direction is up in the world.
    """

    axis: int
    flipped: bool = False


def map_views(poses: Sequence[SE3]) -> tuple[tuple[str, int, Up], tuple[str, int, Up]]:
    """Title, map axis to the right and map axis upwards, of a view from above and one from the side.

    Which way is up is not written in a map; cameras are mostly held upright, so it is the map axis closest to
    the mean of "up in the image".
    """
    up = np.mean([-T.R[:, 1] for T in poses], axis=0) if poses else np.array([0.0, 0.0, 1.0])
    vertical = int(np.argmax(np.abs(up)))
    below = bool(up[vertical] < 0.0)
    # Seen from above neither axis is mirrored: right x upwards = up.
    right, forward = (vertical + 1) % 3, (vertical + 2) % 3
    if below:
        right, forward = forward, right
    spread = np.ptp(np.stack([T.t for T in poses]), axis=0) if poses else np.ones(3)
    wide = max((right, forward), key=lambda axis: float(spread[axis]))
    return ("from above", right, Up(forward)), ("from the side", wide, Up(vertical, below))


def _path(answers: Sequence[m.Answer], true: bool) -> Array:
    """(N, 3) positions with NaN rows where there is none and between sequences."""
    rows = []
    for sequence in m.sequences(answers):
        for answer in sequence:
            T = answer.T_map_true if true else answer.T_map_cam
            rows.append(np.full(3, np.nan) if T is None else T.t)
        rows.append(np.full(3, np.nan))
    return np.array(rows).reshape(-1, 3)


def _time_axis(answers: Sequence[m.Answer]) -> tuple[Array, list[tuple[int, int]]]:
    """(N,) seconds with the sequences side by side, one second apart, and [first, last) of each."""
    seconds: list[float] = []
    parts = []
    offset = 0.0
    for sequence in m.sequences(answers):
        first = len(seconds)
        seconds += [offset + (a.stamp_ns - sequence[0].stamp_ns) * 1e-9 for a in sequence]
        parts.append((first, len(seconds)))
        offset = seconds[-1] + 1.0
    return np.array(seconds), parts


def quiet_axes(ax: Axes) -> None:
    """The style of all axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#9aa3ad")
    ax.tick_params(colors="#555d66", labelsize=9)
    ax.grid(color="#eceff2", lw=0.8)
    ax.set_axisbelow(True)
