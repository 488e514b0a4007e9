"""Figures of errors: over time, as shares of the frames, off the mapped path, and against confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from localizer_ros.core.types import Array
from localizer_ros.evaluation.answers import Answer, sequences, sigmas
from localizer_ros.evaluation.evaluate import Evaluation
from localizer_ros.evaluation.figures import FAILED, NEIGHBOUR, RAW, SMOOTHED, TRUE, new_figure, quiet_axes
from localizer_ros.evaluation.metrics import RECALLS
from localizer_ros.evaluation.off_path import OFF_PATH_DEG, OFF_PATH_M, view_change

_POSITION, _ROTATION = 0, 1
# A median of fewer frames says nothing about a bin.
_FEWEST_IN_A_BIN = 5
_BINS = np.linspace(0.0, 1.0, 21)


def error_figure(evaluation: Evaluation) -> Figure:
    """Error of position and rotation over time, of stills over their number, with the band the covariance claims."""
    answers, raw = evaluation.answers(), evaluation.answers("raw")
    alone = evaluation.config.independent
    if alone:
        answers = [replace(a, sequence="", stamp_ns=n * 1_000_000_000) for n, a in enumerate(answers)]
    seconds, parts = _time_axis(answers)
    figure = new_figure(5.6)
    axes = figure.subplots(2, 1, sharex=True)
    claimed = np.array([[v if v is not None else np.nan for v in sigmas(a.covariance)] for a in answers])
    missing = seconds[np.array([a.T_map_cam is None for a in answers], dtype=np.bool_)]
    for ax, column, unit in ((axes[0], _POSITION, "position [m]"), (axes[1], _ROTATION, "rotation [deg]")):
        smoothed_errors, raw_errors = _errors(answers, column), _errors(raw, column)
        band = 3.0 * claimed[:, column]
        for first, last in parts:
            part, named = slice(first, last), first == 0
            label = "3 sigma of the covariance" if named else None
            ax.fill_between(seconds[part], 0.0, band[part], color=SMOOTHED, alpha=0.13, lw=0, label=label)
            label = "raw" if named else None
            ax.plot(seconds[part], raw_errors[part], ".", ms=3, color=RAW, alpha=0.6, label=label)
            label = "localizer" if named else None
            line = {"ls": "", "marker": ".", "ms": 5.0} if alone else {"lw": 1.4}
            ax.plot(seconds[part], smoothed_errors[part], color=SMOOTHED, label=label, **line)
            if not named:
                ax.axvline(seconds[first] - 0.5, color="#d0d5da", lw=0.8, ls=":")
        _limit_errors(ax, seconds, ((smoothed_errors, SMOOTHED), (raw_errors, RAW)))
        for at in missing:
            ax.axvline(at, ymax=0.04, color=FAILED, lw=1.0)
        ax.set_ylabel(unit)
        quiet_axes(ax)
    if len(missing):
        axes[1].plot([], [], color=FAILED, lw=1.0, label="no answer")
    axes[1].set_xlabel("frame" if alone else "time [s], sequences side by side")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _limit_errors(ax: Axes, seconds: Array, curves: Sequence[tuple[Array, str]]) -> None:
    """Cut the axis off above nearly all errors and mark those beyond at its top.

    One wild frame must not flatten the rest, and the band may be far wider than the errors.
    """
    shown = np.concatenate([errors[np.isfinite(errors)] for errors, _ in curves])
    if not shown.size:
        ax.text(0.5, 0.5, "no ground truth", ha="center", va="center", transform=ax.transAxes)
        return
    top = 1.25 * float(np.percentile(shown, 99.0))
    ax.set_ylim(0.0, max(top, 1e-3))
    for errors, colour in curves:
        over = np.flatnonzero(errors > top)
        if over.size:  # an empty line of markers would take room at the origin of the figure
            ax.plot(seconds[over], np.full(len(over), 0.97 * top), "^", color=colour, ms=4)


def cumulative_figure(evaluation: Evaluation) -> Figure:
    """Share of all frames whose error is at most x, which is logarithmic: answers and the nearest neighbour may be two
    decades apart. A frame without an answer never counts."""
    figure = new_figure(3.8)
    axes = figure.subplots(1, 2, sharey=True)
    runs = [("localizer", SMOOTHED, evaluation.answers()), ("raw", RAW, evaluation.answers("raw"))]
    if evaluation.nearest_neighbour is not None:
        runs.append(("nearest neighbour", NEIGHBOUR, evaluation.answers("nearest_neighbour")))
    marks = (sorted({t for t, _ in RECALLS.values()}), sorted({r for _, r in RECALLS.values()}))
    for column, (ax, unit) in enumerate(
        zip(axes, ("position error [m]", "rotation error [deg]"), strict=True)
    ):
        left, right = marks[column][0] / 10.0, marks[column][-1]
        for label, colour, answers in runs:
            judged = [a for a in answers if a.T_map_true is not None]
            errors = np.sort(_errors([a for a in judged if a.T_map_cam is not None], column))
            if not errors.size:
                continue
            left = min(left, float(np.percentile(errors, 3.0)))
            right = max(right, float(np.percentile(errors, 97.0)))
            share = 100.0 * np.arange(1, len(errors) + 1) / len(judged)
            # A logarithmic axis has no zero.
            errors = np.maximum(np.append(0.0, errors), 1e-9)
            ax.step(errors, np.append(0.0, share), where="post", color=colour, label=label, lw=1.8)
        for mark in marks[column]:
            ax.axvline(mark, color="#d0d5da", lw=0.8, ls=":", zorder=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        # Perfect answers, as of tests, would ask for an endless axis.
        ax.set_xlim(max(left, marks[column][0] / 1000.0), 1.05 * right)
        ax.set_ylim(0.0, 102.0)
        ax.set_xlabel(unit)
        quiet_axes(ax)
    axes[0].set_ylabel("frames [%]")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def off_path_figure(evaluation: Evaluation) -> Figure | None:
    """Error against how far the view is off the nearest mapping pose; None without poses to compare."""
    mapping = evaluation.mapping_poses
    judged = [a for a in evaluation.answers() if a.T_map_true is not None]
    if not mapping or not judged:
        return None
    changes = np.array([view_change(a.T_map_true, mapping)[1:] for a in judged if a.T_map_true is not None])
    figure = new_figure(6.2)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    by = (
        ("distance to the mapping pose most alike [m]", OFF_PATH_M),
        ("angle to the mapping pose most alike [deg]", OFF_PATH_DEG),
    )
    for row, unit in ((_POSITION, "position error [m]"), (_ROTATION, "rotation error [deg]")):
        errors = _errors(judged, row)
        axes[row, 0].set_ylabel(unit)
        for column, (label, edges) in enumerate(by):
            _draw_off_path(axes[row, column], changes[:, column], errors, edges)
            if row == 1:
                axes[row, column].set_xlabel(label)
    return figure


def _draw_off_path(ax: Axes, away: Array, errors: Array, edges: Sequence[float]) -> None:
    """Errors of frames by how far they are off the path, with the median of each bin; unanswered ones at the top."""
    answered = np.isfinite(errors)
    ax.plot(away[answered], errors[answered], ".", color=SMOOTHED, ms=4, alpha=0.35)
    top = 1.1 * float(np.percentile(errors[answered], 99.0)) if answered.any() else 1.0
    if not answered.all():
        ax.plot(away[~answered], np.full(int((~answered).sum()), 0.97 * top), "x", color=FAILED, ms=5)
    for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
        inside = answered & (away >= low) & (away < high)
        if np.count_nonzero(inside) >= _FEWEST_IN_A_BIN:
            right = min(high, float(away.max()))
            ax.plot([low, right], [np.median(errors[inside])] * 2, color=TRUE, lw=2.5, solid_capstyle="butt")
    ax.set_ylim(0.0, top)
    ax.set_xlim(0.0, max(float(away.max()) * 1.05, 1e-3))
    quiet_axes(ax)


def confidence_figure(evaluation: Evaluation) -> Figure | None:
    """Share of wrong answers against coverage, and confidences of right and wrong answers; None without confidences."""
    runs = [
        ("localizer", SMOOTHED, evaluation.metrics.risk_coverage),
        ("raw", RAW, evaluation.raw.risk_coverage),
    ]
    if all(curve is None for _, _, curve in runs):
        return None
    figure = new_figure(3.4)
    risk, histogram = figure.subplots(1, 2)
    for label, colour, curve in runs:
        if curve is not None:
            coverage, wrong = np.array(curve).T
            risk.plot(
                100.0 * coverage, 100.0 * wrong, ".-", color=colour, label=label, lw=1.6, ms=4, clip_on=False
            )
    risk.set_xlim(0.0, 102.0)
    risk.set_ylim(bottom=0.0, top=max(1.0, 1.1 * risk.get_ylim()[1]))
    risk.set_xlabel("coverage: frames that keep their answer [%]")
    risk.set_ylabel("of these wrong [%]")
    risk.legend(frameon=False, loc="upper left")
    sure = [(a.confidence, a.wrong) for a in evaluation.answers("raw") if a.confidence is not None]
    for is_wrong, colour, label in ((False, SMOOTHED, "right"), (True, FAILED, "wrong")):
        values = [confidence for confidence, wrong in sure if wrong is is_wrong]
        if values:
            histogram.hist(values, bins=_BINS.tolist(), color=colour, alpha=0.7, label=label)
    histogram.set_xlabel("confidence of raw answers")
    histogram.set_ylabel("frames")
    if histogram.get_legend_handles_labels()[0]:
        histogram.legend(frameon=False, loc="upper left")
    for ax in (risk, histogram):
        quiet_axes(ax)
    return figure


def _errors(answers: Sequence[Answer], column: int) -> Array:
    """(N,) metres for ``_POSITION``, degrees for ``_ROTATION``; NaN where an error is not known."""
    return np.array([(a.error_m, a.error_deg)[column] for a in answers], dtype=np.float64)


def _time_axis(answers: Sequence[Answer]) -> tuple[Array, list[tuple[int, int]]]:
    """(N,) seconds with the sequences side by side, one second apart, and [first, last) of each."""
    seconds: list[float] = []
    parts = []
    offset = 0.0
    for sequence in sequences(answers):
        first = len(seconds)
        seconds += [offset + (a.stamp_ns - sequence[0].stamp_ns) * 1e-9 for a in sequence]
        parts.append((first, len(seconds)))
        offset = seconds[-1] + 1.0
    return np.array(seconds), parts
