"""Trajectory, frames and map of a result: a rerun viewer, a ``.rrd`` file for it, or a picture.

A result is a scene, a report folder, a bag with poses (such as ``localizer replay`` writes) or a TUM trajectory.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, ConfigError, LocalizerError, SourceError
from localizer_ros.datasets.bag_file import bag_notes
from localizer_ros.evaluation.figures import NEIGHBOUR, RAW, SMOOTHED, TRUE, map_views, quiet_axes
from localizer_ros.scene.bundle import Scene, is_scene
from localizer_ros.scene.nearest_image import DESCRIPTORS
from localizer_ros.scene.point_map import PointMap

Array = NDArray[np.float64]

_BAG_POSES = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")
_COLOURS = {"true": TRUE, "raw": RAW, "localizer": SMOOTHED}
_MAX_POINTS = 200_000
# Mapping cameras stand before points: darker than in reports, which have none.
MAPPED_CAMERA = "#5b8f86"
_POINTS = LinearSegmentedColormap.from_list("height", ["#dfe4ea", "#77838f"])
# Two drives must not be joined by a line.
_GAP_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What there is to show, all in the map frame.

    Attributes:
        title: name of the result.
        trajectories: name -> poses over time.
        mapping: poses of the mapping images.
        points: (N, 3) map points, None when the map has none.
        camera: of the trajectories' frames, None when unknown.
    """

    title: str
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    mapping: Sequence[SE3] = ()
    points: Array | None = None
    camera: Camera | None = None


def view(result: Path, out: Path | None = None, scene: Path | None = None) -> Path | None:
    """Show a result, with the map it was localised in where that is known.

    Args:
        result: scene, report folder, bag with poses, or TUM trajectory.
        out: ``.png`` or ``.rrd`` file; None opens the rerun viewer, or writes NAME.png into the current folder where
            there is no display.
        scene: of the map to show; None takes that which a report or a replayed bag names, if it is still there.

    Returns:
        The file that was written, None for the viewer.

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


def read_content(result: Path, scene: Path | None = None) -> Content:
    """What a result has to show, over the map of ``scene``. Raises SourceError when that is nothing."""
    if not result.exists():
        raise SourceError(f"{result}: does not exist")
    if is_scene(result):
        content = _scene_content(result)
    elif (result / "frames.csv").is_file():
        content = _report_content(result)
    elif (result / "metadata.yaml").is_file() or result.suffix in (".mcap", ".db3", ".bag"):
        content = _bag_content(result)
    elif result.is_file():
        content = Content(result.name, {"localizer": Trajectory.read_tum(result)})
    else:
        raise SourceError(f"{result}: expected a scene, a report folder, a bag or a TUM trajectory")
    if scene is not None:
        content = _over(_scene_content(scene), content)
    if not any(len(t) for t in content.trajectories.values()) and not content.mapping:
        raise SourceError(f"{result}: has no poses to show")
    return content


def picture(content: Content) -> Figure:
    """The content from above and from the side, to the same scale."""
    poses = [T for t in content.trajectories.values() for T in t.poses] + list(content.mapping)
    views = map_views(poses)
    vertical = views[1][2].axis
    points = content.points
    low, high = _limits(poses, points)
    # Cameras as wide as a fortieth of what is shown.
    size = max(float(np.max(high - low)) / 40.0, 1e-3)
    extents = [(high[right] - low[right], high[up.axis] - low[up.axis]) for _, right, up in views]
    width = 9.0
    heights = [float(np.clip(0.88 * width * tall / wide, 1.6, 9.0)) for wide, tall in extents]
    figure = Figure(figsize=(width, sum(heights) + 1.6), facecolor="white", layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=heights)
    for ax, (title, right, up) in zip(axes, views, strict=True):
        if points is not None:
            shade = points[:, vertical] * (-1.0 if views[1][2].flipped else 1.0)
            ax.scatter(
                points[:, right],
                points[:, up.axis],
                s=1.2,
                c=shade,
                cmap=_POINTS,
                lw=0,
                zorder=0,
                rasterized=True,
            )
            ax.plot([], [], "o", ms=3, color="#8b97a5", label="map points (darker = higher)")
        if content.mapping:
            cameras = _wedges(content.mapping, size)[:, :, [right, up.axis]]
            ax.add_collection(LineCollection(list(cameras), colors=MAPPED_CAMERA, linewidths=0.7, zorder=1))
            ax.plot([], [], color=MAPPED_CAMERA, lw=0.9, label="mapping images")
        for name, trajectory in content.trajectories.items():
            if not len(trajectory):
                continue
            line = _broken_line(trajectory)
            style: dict[str, Any] = {"ls": "", "marker": ".", "ms": 3} if name == "raw" else {"lw": 1.6}
            colour = _COLOURS.get(name, NEIGHBOUR)
            # What is drawn last is the answer, over the truth it should hide.
            ax.plot(line[:, right], line[:, up.axis], color=colour, label=name, zorder=3, **style)
            if name == "localizer":
                some = trajectory.poses[:: max(1, len(trajectory) // 20)]
                cameras = _wedges(some, 1.1 * size)[:, :, [right, up.axis]]
                ax.add_collection(LineCollection(list(cameras), colors=colour, linewidths=1.0, zorder=3))
        ax.set_xlim(low[right], high[right])
        ax.set_ylim(low[up.axis], high[up.axis])
        if up.flipped:
            ax.invert_yaxis()
        ax.set_aspect("equal", adjustable="box")
        ax.set_title(f"{content.title}, {title}", loc="left", fontsize=11)
        ax.set_xlabel(f"{'xyz'[right]} [m]")
        ax.set_ylabel(f"{'xyz'[up.axis]} [m]")
        quiet_axes(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _limits(poses: Sequence[SE3], points: Array | None) -> tuple[Array, Array]:
    """(3,) lower and (3,) upper corner of what is worth showing, with a margin: all poses, and points but the
    outliers of a map, which would shrink everything else.
    """
    positions = np.stack([T.t for T in poses])
    low, high = positions.min(axis=0), positions.max(axis=0)
    if points is not None and len(points):
        low = np.minimum(low, np.percentile(points, 1.0, axis=0))
        high = np.maximum(high, np.percentile(points, 99.0, axis=0))
    margin = 0.04 * float(np.max(high - low)) + 0.05
    return low - margin, high + margin


def _wedges(poses: Sequence[SE3], size: float) -> Array:
    """(N, 4, 3) closed lines: where cameras are and the horizontal wedge they look into."""
    corners = size * np.array([[0.0, 0.0, 0.0], [-0.5, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.0]])
    return np.stack([corners @ T.R.T + T.t for T in poses])


# --- reading ---


def _scene_content(path: Path) -> Content:
    scene = Scene.load(path)
    mapping: list[SE3] = []
    points = None
    baseline = path / "networks" / DESCRIPTORS
    if baseline.is_file():
        with np.load(baseline, allow_pickle=False) as data:
            mapping = [SE3.from_matrix(T) for T in data["poses"]]
    if (path / "map" / "point_map.npz").is_file():
        structure = PointMap.load(path / "map")
        mapping = [SE3.from_matrix(T) for T in structure.T_map_cam]
        step = max(1, len(structure.points) // _MAX_POINTS)
        points = structure.points[::step].astype(np.float64)
    return Content(path.resolve().name, {}, mapping, points, scene.camera)


def _report_content(folder: Path) -> Content:
    items: dict[str, list[tuple[int, SE3]]] = {"true": [], "raw": [], "localizer": []}
    try:
        with (folder / "frames.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                for name, prefix in (("true", "true"), ("raw", "raw"), ("localizer", "estimate")):
                    if row[f"{prefix}_x"]:
                        t = [float(row[f"{prefix}_{c}"]) for c in ("x", "y", "z")]
                        q = [float(row[f"{prefix}_{c}"]) for c in ("qx", "qy", "qz", "qw")]
                        items[name].append((int(row["stamp_ns"]), SE3.from_quaternion(t, q)))
    except (OSError, KeyError, ValueError) as error:
        raise SourceError(f"{folder / 'frames.csv'}: cannot be read ({error})") from error
    trajectories = {name: Trajectory.from_items(found) for name, found in items.items()}
    content = Content(folder.resolve().name, trajectories)
    try:
        scene = str(json.loads((folder / "summary.json").read_text())["scene"])
    except (OSError, ValueError, KeyError):
        return content
    return _over_named(scene, content)


def _over(scene: Content, content: Content) -> Content:
    """The map beneath the trajectories."""
    return Content(content.title, content.trajectories, scene.mapping, scene.points, scene.camera)


def _over_named(scene: str, content: Content) -> Content:
    """The same where a result names the scene, which may have gone since."""
    try:
        return _over(_scene_content(Path(scene)), content)
    except LocalizerError:
        return content


def _bag_content(path: Path) -> Content:
    items: dict[str, dict[int, SE3]] = {}
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            connections = [c for c in reader.connections if c.msgtype in _BAG_POSES]
            for connection, _, raw in reader.messages(connections) if connections else ():
                message = reader.deserialize(raw, connection.msgtype)
                inner = message.pose.pose if hasattr(message.pose, "pose") else message.pose
                p, q = inner.position, inner.orientation
                stamp_ns = int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
                T = SE3.from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
                items.setdefault(_short_name(connection.topic), {})[stamp_ns] = T
    except (AnyReaderError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    # With and without covariance they are the same poses.
    if "localizer" in items:
        items.pop("pose_with_covariance", None)
    trajectories = {name: Trajectory.from_items(found.items()) for name, found in items.items()}
    content = Content(path.resolve().name, trajectories)
    scene = bag_notes(path / "metadata.yaml").get("scene")
    return content if scene is None else _over_named(scene, content)


def _short_name(topic: str) -> str:
    names = {"/localizer/pose": "localizer", "/localizer/global_pose": "raw", "/ground_truth": "true"}
    return names.get(topic, topic.strip("/").rsplit("/", 1)[-1])


def _broken_line(trajectory: Trajectory) -> Array:
    """(N, 3) positions with NaN rows at gaps in time."""
    gaps = np.flatnonzero(np.diff(trajectory.stamps_ns) > _GAP_NS) + 1
    return np.insert(trajectory.positions, gaps, np.nan, axis=0)


# --- rerun ---


def _log(content: Content, out: Path | None) -> None:
    """Write a recording to a file, or to a viewer that is started."""
    import rerun as rr

    recording = rr.RecordingStream("localizer_ros")
    if out is not None:
        recording.save(str(out))
    else:
        try:
            recording.spawn()
        except Exception as error:  # the viewer's own errors have no base class in common
            raise ConfigError(f"view: the rerun viewer does not start ({error}); use --out FILE") from error
    poses = [T for t in content.trajectories.values() for T in t.poses] + list(content.mapping)
    _, (_, _, up) = map_views(poses)
    upwards = f"RIGHT_HAND_{'XYZ'[up.axis]}_{'DOWN' if up.flipped else 'UP'}"
    recording.log("map", getattr(rr.ViewCoordinates, upwards), static=True)
    if content.points is not None:
        recording.log(
            "map/points", rr.Points3D(content.points, colors=[150, 158, 166], radii=0.01), static=True
        )
    if content.mapping:
        low, high = _limits(poses, None)
        cameras = _wedges(content.mapping, max(float(np.max(high - low)) / 40.0, 0.05))
        recording.log("map/mapping", rr.LineStrips3D(cameras, colors=_rgb(MAPPED_CAMERA)), static=True)
    starts = [int(t.stamps_ns[0]) for t in content.trajectories.values() if len(t)]
    for name, trajectory in content.trajectories.items():
        if not len(trajectory):
            continue
        colour = _rgb(_COLOURS.get(name, NEIGHBOUR))
        gaps = np.flatnonzero(np.diff(trajectory.stamps_ns) > _GAP_NS) + 1
        strips = np.split(trajectory.positions, gaps)
        recording.log(f"map/{name}/path", rr.LineStrips3D(strips, colors=colour, radii=0.008), static=True)
        frame = f"map/{name}/camera"
        if content.camera is not None:
            camera = content.camera
            size = [camera.width_px, camera.height_px]
            pinhole = rr.Pinhole(image_from_camera=camera.K, resolution=size, image_plane_distance=0.2)
            recording.log(frame, pinhole, static=True)
        for stamp_ns, T in zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True):
            recording.set_time("time", duration=(stamp_ns - min(starts)) * 1e-9)
            recording.log(frame, rr.Transform3D(translation=T.t, mat3x3=T.R))
    recording.flush()


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
