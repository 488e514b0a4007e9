"""The report of an evaluation: one HTML file that needs nothing else, and its figures as PNG beside it.

``write_report`` fills a folder with ``report.html``, ``summary.json``, ``frames.csv`` and ``*.png``.
"""

from __future__ import annotations

import base64
import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from localizer_ros.core.config import dump_yaml
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation import metrics as m
from localizer_ros.evaluation.evaluate import Evaluation, FrameResult, sigmas

Array = NDArray[np.float64]

TRUE, SMOOTHED, RAW, NEIGHBOUR, MAPPED = "#22262b", "#1667c7", "#e8833a", "#3a9d6e", "#c3c9d0"
_STYLE = {"facecolor": "white", "layout": "constrained"}
_DPI = 130
_THUMBNAIL_PX = 300
_WORST = 6
# Thumbnails of neighbouring frames would all tell the same story.
_WORST_APART_NS = 1_000_000_000


def write_report(evaluation: Evaluation, folder: Path, mapping_recording: FrameSource | None = None) -> Path:
    """Write the report of an evaluation.

    Args:
        evaluation: the run.
        folder: made when it is not there; files of an earlier report in it are replaced.
        mapping_recording: what the scene was mapped from, to show its images; the evaluated recording itself
            is searched as well.

    Returns:
        Path of ``report.html``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: list[tuple[str, str, Figure]] = [
        ("trajectory", "Trajectory", trajectory_figure(evaluation)),
        ("error_over_time", "Error over time", error_figure(evaluation)),
        ("cumulative_error", "Share of frames within an error", cumulative_figure(evaluation)),
    ]
    off_path = off_path_figure(evaluation)
    if off_path is not None:
        figures.append(("off_path", "How far off the mapped path", off_path))
    figures.append(("latency", "Latency", latency_figure(evaluation)))
    training = training_figure(evaluation.scene.path / "training.csv")
    if training is not None:
        figures.append(("training", "Training", training))
    images = {}
    for name, _, figure in figures:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI)
        (folder / f"{name}.png").write_bytes(png.getvalue())
        images[name] = _data_uri(png.getvalue(), "image/png")
    (folder / "summary.json").write_text(evaluation.to_json())
    (folder / "frames.csv").write_text(evaluation.frames_csv())
    page = _template().render(
        e=evaluation,
        summary=evaluation.to_dict(),
        title=f"{evaluation.scene.path.resolve().name} · {evaluation.recording.path.resolve().name}",
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        rows=_summary_rows(evaluation),
        odometry=_odometry_rows(evaluation),
        cards=_cards(evaluation),
        figures={name: (title, images[name]) for name, title, _ in figures},
        off_path=m.off_path_table(evaluation.answers(), evaluation.mapping_poses),
        worst=_worst(evaluation, mapping_recording),
        failures=_failures(evaluation.frames),
        config=dump_yaml(evaluation.config),
        notes=_NOTES,
        colours={"smoothed": SMOOTHED, "raw": RAW, "neighbour": NEIGHBOUR},
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


# --- figures ---


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


# --- tables and pictures of the page ---


@dataclass(frozen=True)
class _Card:
    label: str
    value: str
    note: str


def _cards(evaluation: Evaluation) -> list[_Card]:
    e, values = evaluation.metrics, evaluation.to_dict()
    neighbour = evaluation.nearest_neighbour
    against = (
        f"nearest neighbour {_length(neighbour.median_t_m)}, {_angle(neighbour.median_r_deg)}"
        if neighbour is not None
        else "no nearest-neighbour baseline in this scene"
    )
    latency = values["latency_ms"]
    return [
        _Card("median error", f"{_length(e.median_t_m)} · {_angle(e.median_r_deg)}", against),
        _Card("answered", f"{e.answered} / {e.frames}", "frames; the rest count as failures"),
        _Card(
            "within 0.5 m, 5°",
            _percent(e.recall["50cm_5deg"]),
            f"{_percent(e.recall['25cm_2deg'])} within 0.25 m, 2°",
        ),
        _Card("latency", f"{_number(latency['p50'])} ms", f"median; p99 {_number(latency['p99'])} ms"),
        _Card(
            "covariance",
            _number(e.nees_median),
            f"median NEES; honest is {m.NEES_EXPECTED_MEDIAN:.1f}, more is too sure",
        ),
    ]


def _summary_rows(evaluation: Evaluation) -> list[tuple[str, str, list[str]]]:
    rows = [("localizer", "smoothed", evaluation.metrics), ("raw answers", "raw", evaluation.raw)]
    if evaluation.nearest_neighbour is not None:
        rows.append(("nearest neighbour", "neighbour", evaluation.nearest_neighbour))
    return [
        (
            label,
            colour,
            [
                str(e.answered),
                f"{_length(e.median_t_m)}\n{_angle(e.median_r_deg)}",
                f"{_length(e.p90_t_m)}\n{_angle(e.p90_r_deg)}",
                *(_percent(value) for value in e.recall.values()),
                _percent(e.wrong_fraction),
                _length(e.ate_rmse_m),
                f"{_length(e.rpe_t_m)}\n{_angle(e.rpe_r_deg)}",
                f"{_length(e.jitter_t_m)}\n{_angle(e.jitter_r_deg)}",
                _number(e.jumps_per_min),
                _number(e.nees_median),
            ],
        )
        for label, colour, e in rows
    ]


def _odometry_rows(evaluation: Evaluation) -> list[list[str]]:
    """What measured the motions, and how well these alone add up to the path; fused, there are absolute poses too."""
    rows = []
    for source, o in evaluation.odometry.items():
        name = _ODOMETRY.get(source, source)
        rows.append(
            [
                name if o.lengths == "own" else f"{name}, lengths from {o.lengths}",
                f"{o.motions} / {o.frames}",
                f"{_length(o.rpe_t_m)}\n{_angle(o.rpe_r_deg)}",
                f"{_length(o.rpe_median_t_m)}\n{_angle(o.rpe_median_r_deg)}",
                _number(o.drift_percent),
                _number(o.nees_median),
                _number(o.nees_1s_median),
            ]
        )
    for name, e in (("raw answers", evaluation.raw), ("localizer (fused)", evaluation.metrics)):
        rows.append([name, "", f"{_length(e.rpe_t_m)}\n{_angle(e.rpe_r_deg)}", *[""] * 4])
    return rows


@dataclass(frozen=True)
class _Worst:
    name: str
    error: str
    note: str
    query: str
    mapped_name: str
    mapped_note: str
    mapped: str


def _worst(evaluation: Evaluation, mapping_recording: FrameSource | None) -> list[_Worst]:
    answers = evaluation.answers()
    ranked = sorted(
        (i for i, a in enumerate(answers) if a.T_map_true is not None and a.T_map_cam is not None),
        key=lambda i: -max(answers[i].error_m / 0.25, answers[i].error_deg / 5.0),
    )
    chosen: list[int] = []
    for i in ranked:
        apart = all(
            answers[i].sequence != answers[j].sequence
            or abs(answers[i].stamp_ns - answers[j].stamp_ns) >= _WORST_APART_NS
            for j in chosen
        )
        if apart:
            chosen.append(i)
        if len(chosen) == _WORST:
            break
    recordings = [r for r in (mapping_recording, evaluation.recording) if r is not None]
    found = []
    for i in chosen:
        frame, answer = evaluation.frames[i], answers[i]
        assert answer.T_map_true is not None
        sigma_m, sigma_deg = sigmas(answer.covariance)
        claimed = "" if sigma_m is None else f"claimed 1σ {_length(sigma_m)}, {_angle(sigma_deg)}"
        reason = frame.output.reason if frame.output is not None else ""
        mapped_name, mapped_note, mapped = "", "", ""
        if evaluation.baseline is not None and evaluation.mapping_poses:
            index, metres, degrees = m.view_change(answer.T_map_true, evaluation.mapping_poses)
            mapped_name = evaluation.baseline.names[index]
            mapped_note = (
                f"{_length(metres)}, {_angle(degrees)} away · {_position(evaluation.mapping_poses[index])}"
            )
            mapped = _mapping_thumbnail(recordings, mapped_name, evaluation.mapping_poses[index])
        found.append(
            _Worst(
                frame.record.name,
                f"{_length(answer.error_m)} · {_angle(answer.error_deg)}",
                " · ".join(part for part in (claimed, reason) if part),
                _thumbnail(_read(evaluation.source, frame.index)),
                mapped_name,
                mapped_note,
                mapped,
            )
        )
    return found


def _failures(frames: Iterable[FrameResult]) -> list[tuple[str, int]]:
    """Why frames have no answer, most frequent first."""
    reasons = Counter(
        f"dropped: {f.message or f.dropped}"
        if f.output is None
        else f"{f.output.status.value}: {f.output.reason or 'no estimate'}"
        for f in frames
        if f.output is None or f.output.estimate is None
    )
    return reasons.most_common(8)


def _mapping_thumbnail(recordings: Sequence[FrameSource], name: str, T_map_cam: SE3) -> str:
    """The mapping image when one of the recordings has it: same name and same pose."""
    for recording in recordings:
        for index, record in enumerate(recording.records):
            if record.name == name and record.T_map_cam is not None:
                # Another recording may use the same names.
                if record.T_map_cam.distance_to(T_map_cam) < 1e-3:
                    return _thumbnail(_read(recording, index))
                break
    return ""


def _read(source: FrameSource, index: int) -> Frame | None:
    try:
        return source.read(index)
    except LocalizerError:
        return None


def _thumbnail(frame: Frame | None) -> str:
    if frame is None:
        return ""
    height, width = frame.image.shape[:2]
    size = (_THUMBNAIL_PX, max(1, round(_THUMBNAIL_PX * height / width)))
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if image.ndim == 3:
        image = image[..., ::-1]
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return _data_uri(jpeg.tobytes(), "image/jpeg") if done else ""


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _length(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} m" if value < 10 else f"{value:.1f} m"


def _angle(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}°" if value < 10 else f"{value:.1f}°"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _position(T: SE3) -> str:
    return f"at ({', '.join(f'{v:.2f}' for v in T.t)})"


_COLUMNS = (
    "answered",
    "median",
    "p90",
    *(f"≤ {t:g} m\n{r:g}°" for t, r in m.RECALLS.values()),
    "wrong",
    "ATE",
    "RPE\n1 s",
    "jitter",
    "jumps\na minute",
    "NEES",
)

_CURVES = {
    "val_median_t_m": "pose",
    "val_median_r_deg": "pose",
    "val_vo_t_m": "motion",
    "val_vo_r_deg": "motion",
}
_ODOMETRY = {
    "vo": "motion head",
    "tracking": "tracking",
    "odom": "external odometry",
    "geometric": "geometric VO",
}
_ODOMETRY_COLUMNS = ("motions", "RPE\n1 s", "median\nof these", "drift\n% of path", "NEES", "NEES\n1 s")

_NOTES = (
    "A frame without an answer counts as a failure in every recall and is left out of medians and "
    "percentiles.",
    "Recalls are shares of the frames that have ground truth.",
    f"Wrong: answers off by more than {m.WRONG_M:g} m or {m.WRONG_DEG:g}°, as a share of the answers.",
    "ATE: root mean square position error. Nothing is aligned, as the map frame is that of the ground truth.",
    "RPE: root mean square error of the motion over one second. Jitter: root mean square of the step of the error "
    "from one frame to the next. Neither bridges sequences.",
    f"Jumps: steps of the error between two answers beyond {m.JUMP_M:g} m or {m.JUMP_DEG:g}°, per minute.",
    f"NEES: squared error in units of the covariance, six degrees of freedom; its median is "
    f"{m.NEES_EXPECTED_MEDIAN:.2f} when the covariance is honest, and larger when it is too small.",
    "Odometry: each source's motions alone, added up from the beginning of a sequence, or from where one was "
    "unknown. Drift is how far they miss the ends, in percent of the path. NEES of single motions, and of motions over "
    "one second with their errors taken as independent. Geometric VO knows directions only; lengths that come from the "
    "ground truth flatter it.",
    "Nearest neighbour: the pose of the mapping image that looks most alike, without any estimation.",
    "The band in the error plot is three standard deviations in the most uncertain direction.",
    f"The mapping pose most alike is the one with the least distance plus angle, {m.VIEW_DEG_PER_M:g}° "
    "counting as 1 m.",
    "Latency is the time of the whole pipeline for a frame, without reading the image.",
)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(length_m=_length, angle=_angle, percent=_percent, number=_number)
    environment.globals["columns"] = _COLUMNS
    environment.globals["odometry_columns"] = _ODOMETRY_COLUMNS
    return environment.from_string(_PAGE)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} – localization report</title>
<style>
:root { --ink:#22262b; --soft:#5c6670; --line:#e3e7eb; --wash:#f6f8fa; }
* { box-sizing: border-box; }
body { margin:0; color:var(--ink); background:#fff;
  font:15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width:1120px; margin:0 auto; padding:36px 24px 64px; }
h1 { font-size:26px; margin:0 0 2px; letter-spacing:-.01em; }
h2 { font-size:18px; margin:40px 0 10px; }
p { margin:6px 0; } .soft, small { color:var(--soft); }
.cards { display:flex; flex-wrap:wrap; gap:12px; margin:22px 0 8px; }
.card { flex:1 1 190px; background:var(--wash); border:1px solid var(--line); border-radius:10px;
  padding:12px 14px; }
.card b { display:block; font-size:21px; font-weight:600; margin:1px 0; white-space:nowrap; }
.card span { color:var(--soft); font-size:12.5px; display:block; line-height:1.35; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; font-size:13px; font-variant-numeric:tabular-nums; }
.wide { width:100%; }
th, td { text-align:right; padding:6px 8px; white-space:pre-line; line-height:1.35; }
th { font-weight:600; color:var(--soft); font-size:12px; vertical-align:bottom; }
td { border-top:1px solid var(--line); vertical-align:top; }
th:first-child, td:first-child { text-align:left; padding-left:0; white-space:nowrap; }
.dot { display:inline-block; width:9px; height:9px; border-radius:50%; margin-right:7px; }
img.figure { width:100%; height:auto; display:block; }
.worst { display:flex; flex-wrap:wrap; gap:18px; }
.pair { flex:1 1 500px; display:flex; gap:8px; border:1px solid var(--line); border-radius:10px;
  padding:10px; }
.pair figure { margin:0; flex:1 1 0; min-width:0; }
.pair img, .none { width:100%; border-radius:6px; display:block; }
.none { background:var(--wash); color:var(--soft); aspect-ratio:4/3; font-size:12px; text-align:center;
  padding:30% 8px 8px; }
figcaption { font-size:12px; line-height:1.4; margin-top:6px; overflow-wrap:anywhere; }
details { border-top:1px solid var(--line); padding:10px 0; }
summary { cursor:pointer; font-weight:600; }
pre { background:var(--wash); padding:12px; border-radius:8px; overflow-x:auto; font-size:12.5px;
  line-height:1.4; }
ul { padding-left:20px; margin:8px 0; } li { margin:2px 0; }
@media print { details { display:none; } h2 { break-after:avoid; } .pair { break-inside:avoid; } }
</style></head><body><main>
<h1>{{ title }}</h1>
<p class="soft">{{ e.scene.method }} · split <b>{{ e.split }}</b> ·
ground truth <b>{{ e.source.ground_truth }}</b>
{% if summary.frames_with_truth < summary.frames %}
on {{ summary.frames_with_truth }} of {{ summary.frames }} frames
{% endif %}
· localizer_ros {{ e.versions.localizer_ros }} · {{ date }}</p>
<div class="cards">
{% for card in cards %}
<div class="card"><span>{{ card.label }}</span><b>{{ card.value }}</b><span>{{ card.note }}</span></div>
{% endfor %}
</div>
<h2>Summary</h2>
<div class="scroll"><table class="wide">
<tr><th></th>{% for c in columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for label, colour, cells in rows %}
<tr><td><span class="dot" style="background:{{ colours[colour] }}"></span>{{ label }}</td>
{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p><small>Ground truth: {{ e.source.ground_truth }}. Status of the frames:
{% for name, count in summary.status.items() %}
{{ name }} {{ count }}{{ ", " if not loop.last else "." }}
{% endfor %}
{% if summary.dropped %}
Dropped: {% for kind, count in summary.dropped.items() %}
{{ kind }} {{ count }}{{ ", " if not loop.last else "." }}
{% endfor %}
{% endif %}
Peak memory {{ "%.0f" | format(summary.peak_rss_mb) }} MiB; the run took
{{ "%.0f" | format(summary.wall_s) }} s.</small></p>
{% if failures %}
<p><small>Frames without an answer:
{% for reason, count in failures %}
{{ count }} × {{ reason }}{{ "; " if not loop.last else "." }}
{% endfor %}
</small></p>
{% endif %}
{% for name in ("trajectory", "error_over_time", "cumulative_error", "off_path") if name in figures %}
<h2>{{ figures[name][0] }}</h2>
<img class="figure" src="{{ figures[name][1] }}" alt="{{ figures[name][0] }}">
{% endfor %}
{% if off_path %}
<div class="scroll"><table><tr><th>view off the mapped path by</th><th>frames</th><th>answered</th>
<th>median</th><th></th><th>≤ 0.5 m 5°</th></tr>
{% for r in off_path %}
{% set unit = " m" if r.by == "distance_m" else "°" %}
{% set what = "distance" if r.by == "distance_m" else "angle" %}
{% set low = "%g" | format(r["from"]) %}
<tr><td>{{ what }} {% if r.to is none %}{{ low }}{{ unit }} and more
{%- else %}{{ low }} – {{ "%g" | format(r.to) }}{{ unit }}{% endif %}</td>
<td>{{ r.frames }}</td><td>{{ r.answered }}</td><td>{{ r.median_t_m | length_m }}</td>
<td>{{ r.median_r_deg | angle }}</td><td>{{ r.recall_50cm_5deg | percent }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if odometry | length > 2 %}
<h2>Odometry by itself</h2>
<div class="scroll"><table><tr><th></th>{% for c in odometry_columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for row in odometry %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if worst %}
<h2>Worst frames</h2>
<p class="soft">The frame on the left; on the right the mapping image whose pose is most like its true pose.
</p>
<div class="worst">
{% for w in worst %}
<div class="pair"><figure>
{% if w.query %}
<img src="{{ w.query }}" alt="query image">
{% else %}
<div class="none">image not available</div>
{% endif %}
<figcaption><b>{{ w.error }}</b><br>{{ w.name }}<br><span class="soft">{{ w.note }}</span></figcaption>
</figure><figure>
{% if w.mapped %}
<img src="{{ w.mapped }}" alt="mapping image">
{% else %}
<div class="none">{{ "not in this recording" if w.mapped_name else "no mapping images in this scene" }}</div>
{% endif %}
<figcaption>{{ w.mapped_note }}<br>{{ w.mapped_name }}</figcaption></figure></div>
{% endfor %}
</div>
{% endif %}
{% for name in ("latency", "training") if name in figures %}
<h2>{{ figures[name][0] }}</h2>
<img class="figure" src="{{ figures[name][1] }}" alt="{{ figures[name][0] }}">
{% endfor %}
<h2>Reading this report</h2>
<ul class="soft">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>How it was made</h2>
<details><summary>Configuration of the localizer</summary><pre>{{ config }}</pre></details>
<details><summary>Versions</summary><pre>{% for name, version in e.versions.items() %}
{{ name }} {{ version }}
{% endfor %}</pre></details>
</main></body></html>
"""
