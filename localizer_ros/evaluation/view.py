"""Trajectory, frames and map of a result: a rerun viewer, a ``.rrd`` file for it, or a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, ConfigError
from localizer_ros.evaluation import result_content
from localizer_ros.evaluation.figures import NEIGHBOUR, RAW, SMOOTHED, TRUE, label_axes
from localizer_ros.evaluation.map_views import MAPPED_CAMERA, MapView, limits, map_views, wedges
from localizer_ros.evaluation.result_content import Content, gaps, read_content

COLOURS = {result_content.TRUE: TRUE, result_content.RAW: RAW, result_content.LOCALIZER: SMOOTHED}
"""Of trajectories by their names; others have the colour of a baseline."""

_POINTS = LinearSegmentedColormap.from_list("height", ["#dfe4ea", "#77838f"])
_WIDTH_IN = 9.0
# Cameras drawn along an answer: more would be a band.
_CAMERAS = 20


def view(result: Path, out: Path | None = None, scene: Path | None = None) -> Path | None:
    """The file that shows a result with the map it was localised in, None where the viewer does.

    Args:
        result: scene, report folder, bag with poses, or TUM trajectory.
        out: ``.png`` or ``.rrd`` file; None opens the rerun viewer, or writes NAME.png into the current folder where
            there is no display.
        scene: of the map to show; None takes that which a report or a replayed bag names, if it is still there.

    Raises:
        SourceError: nothing to show there.
        SceneError: ``scene`` is damaged or none.
        ConfigError: ``out`` is of another kind, or the viewer does not start.
    """
    content = read_content(result, scene)
    if out is None and not _has_display():
        out = Path(f"{result.resolve().name}.png")
    if out is None:
        _log(content, None)
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        picture(content).savefig(out, dpi=130)
    elif out.suffix == ".rrd":
        _log(content, out)
    else:
        raise ConfigError(f"{out}: expected a .png or .rrd file")
    return out


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _log(content: Content, out: Path | None) -> None:
    # Late: rerun is an optional extra.
    from localizer_ros.evaluation.rerun_drawing import log_result

    log_result(content, out, {name: COLOURS.get(name, NEIGHBOUR) for name in content.trajectories})


# --- a picture ---


def picture(content: Content) -> Figure:
    """The content from above and from the side, to the same scale."""
    views = map_views(content.poses)
    low, high = limits(content.poses, content.points)
    extents = [(high[v.right] - low[v.right], high[v.up.axis] - low[v.up.axis]) for v in views]
    heights = [float(np.clip(0.88 * _WIDTH_IN * tall / wide, 1.6, 9.0)) for wide, tall in extents]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 1.6), facecolor="white", layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=heights)
    # The view from the side has the vertical axis upwards.
    vertical = views[1].up
    # Cameras as wide as a fortieth of what is shown.
    camera_m = max(float(np.max(high - low)) / 40.0, 1e-3)
    for ax, side in zip(axes, views, strict=True):
        if content.points is not None:
            height = content.points[:, vertical.axis] * (-1.0 if vertical.flipped else 1.0)
            _draw_points(ax, side, content.points, height)
        if content.mapping:
            _draw_cameras(ax, side, content.mapping, camera_m, MAPPED_CAMERA, 0.7, 1)
            ax.plot([], [], color=MAPPED_CAMERA, lw=0.9, label="mapping images")
        for name, trajectory in content.trajectories.items():
            if len(trajectory):
                _draw_trajectory(ax, side, name, trajectory, camera_m)
        ax.set_xlim(low[side.right], high[side.right])
        ax.set_ylim(low[side.up.axis], high[side.up.axis])
        ax.set_aspect("equal", adjustable="box")
        label_axes(ax, side, f"{content.title}, {side.title}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _draw_points(ax: Axes, view: MapView, points: Array, height: Array) -> None:
    x, y = points[:, view.right], points[:, view.up.axis]
    ax.scatter(x, y, s=1.2, c=height, cmap=_POINTS, lw=0, zorder=0, rasterized=True)
    ax.plot([], [], "o", ms=3, color="#8b97a5", label="map points (darker = higher)")


def _draw_trajectory(ax: Axes, view: MapView, name: str, trajectory: Trajectory, camera_m: float) -> None:
    line = np.insert(trajectory.positions, gaps(trajectory), np.nan, axis=0)
    dots = name == result_content.RAW
    style: dict[str, Any] = {"ls": "", "marker": ".", "ms": 3} if dots else {"lw": 1.6}
    colour = COLOURS.get(name, NEIGHBOUR)
    # What is drawn last is the answer, over the truth it should hide.
    ax.plot(line[:, view.right], line[:, view.up.axis], color=colour, label=name, zorder=3, **style)
    if name == result_content.LOCALIZER:
        some = trajectory.poses[:: max(1, len(trajectory) // _CAMERAS)]
        _draw_cameras(ax, view, some, 1.1 * camera_m, colour, 1.0, 3)


def _draw_cameras(
    ax: Axes, view: MapView, poses: Sequence[SE3], size_m: float, colour: str, width: float, zorder: int
) -> None:
    cameras = wedges(poses, size_m)[:, :, [view.right, view.up.axis]]
    ax.add_collection(LineCollection(list(cameras), colors=colour, linewidths=width, zorder=zorder))
