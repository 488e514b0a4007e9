"""What all figures of evaluations share: colours, axes, which way is up; and the trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from localizer_ros.core.types import Array
from localizer_ros.evaluation.answers import Answer, sequences
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.map_views import MapView, map_views

TRUE, SMOOTHED, RAW, NEIGHBOUR, MAPPED = "#22262b", "#1667c7", "#e8833a", "#3a9d6e", "#c3c9d0"
FAILED = "#c0392b"
WIDTH_IN = 11.0
"""Width of every figure of a report, inches."""


def new_figure(height_in: float) -> Figure:
    """An empty figure as wide as a report."""
    return Figure(figsize=(WIDTH_IN, height_in), facecolor="white", layout="constrained")


def quiet_axes(ax: Axes) -> None:
    """Give axes the style that all have."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#9aa3ad")
    ax.tick_params(colors="#555d66", labelsize=9)
    ax.grid(color="#eceff2", lw=0.8)
    ax.set_axisbelow(True)


def label_axes(ax: Axes, view: MapView, title: str) -> None:
    """Title, names of the map axes and the direction of up."""
    if view.up.flipped:
        ax.invert_yaxis()
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(f"{'xyz'[view.right]} [m]")
    ax.set_ylabel(f"{'xyz'[view.up.axis]} [m]")
    quiet_axes(ax)


def trajectory_figure(evaluation: Evaluation) -> Figure:
    """Map, truth, estimate and raw answers from above and from the side."""
    answers, raw = evaluation.answers(), evaluation.answers("raw")
    mapping = evaluation.mapping_poses
    poses = [a.T_map_true or a.T_map_cam for a in answers]
    views = map_views([T for T in (*poses, *mapping) if T is not None])
    figure = new_figure(5.6)
    axes = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    # No line joins stills.
    point = {"marker": ".", "ms": 5.0} if evaluation.config.independent else {}
    lines = {"true": _path(answers, True), "raw": _path(raw, False), "smoothed": _path(answers, False)}
    reference = [T.t for T in (*mapping, *(a.T_map_true for a in answers)) if T is not None]
    wild = 0
    if reference:
        _without_wild(lines["raw"], reference)
        wild = _without_wild(lines["smoothed"], reference)
    for ax, view in zip(axes, views, strict=True):
        if mapping:
            t = np.stack([T.t for T in mapping])
            ax.plot(
                t[:, view.right],
                t[:, view.up.axis],
                ".",
                color=MAPPED,
                ms=4,
                label="mapping images",
                zorder=1,
            )
        for kind, colour, label, style in (
            ("raw", RAW, "raw answer", {"ls": "", "marker": ".", "ms": 3.5, "alpha": 0.55}),
            ("true", TRUE, "ground truth", {"lw": 2.0, **point}),
            ("smoothed", SMOOTHED, "localizer", {"lw": 1.5, **point}),
        ):
            line = lines[kind]
            if not np.all(np.isnan(line)):
                ax.plot(
                    line[:, view.right], line[:, view.up.axis], color=colour, label=label, zorder=3, **style
                )
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        label_axes(ax, view, view.title)
    if wild:
        axes[0].annotate(
            f"{wild} answers of the localizer are far outside", (0.02, 0.02), xycoords="axes fraction"
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _without_wild(line: Array, reference: Sequence[Array]) -> int:
    """How many positions of (N, 3) were made NaN: a wild answer must not shrink the rest of the picture to a dot."""
    low, high = np.min(reference, axis=0), np.max(reference, axis=0)
    margin = max(0.5 * float(np.max(high - low)), 0.5)
    with np.errstate(invalid="ignore"):
        outside = np.any((line < low - margin) | (line > high + margin), axis=1)
    line[outside] = np.nan
    return int(outside.sum())


def _path(answers: Sequence[Answer], true: bool) -> Array:
    """(N, 3) positions with NaN rows where there is none and between sequences."""
    rows = []
    for sequence in sequences(answers):
        for answer in sequence:
            T = answer.T_map_true if true else answer.T_map_cam
            rows.append(np.full(3, np.nan) if T is None else T.t)
        rows.append(np.full(3, np.nan))
    return np.array(rows).reshape(-1, 3)
