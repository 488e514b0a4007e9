"""The picture of the README: map points on a live image, beside the pose in the map.

    make demo
    python tools/overlay_picture.py demo/scene demo/drive2 --frame 150 --out docs/images/overlay.jpg

Any scene with a map of points and any recording of the same place will do; `--credit` names whose images they are. The
frames before are localised as well, as on a robot, so that the picture shows what is published at that moment.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.preprocess import to_rgb
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Frame, LocalizerError, PoseEstimate
from localizer_ros.datasets.source import open_source
from localizer_ros.evaluation.figures import MAPPED, SMOOTHED, TRUE, label_axes
from localizer_ros.evaluation.map_views import map_views
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.map_scene import MapScene

KEYFRAMES = 8
FRUSTUM_DEPTH = 0.25
"""Length of the drawn camera, as a share of the median depth of the map's points."""


def localised(scene: Path, source: Path, split: str, index: int) -> tuple[Frame, list[PoseEstimate]]:
    """The frame, and the published poses of all frames up to it."""
    recording = open_source(source)
    part = recording.split(split if split in recording.splits else "all")
    localizer = open_localizer(scene, RunConfig())
    try:
        outputs = [localizer.process(part.read(i)) for i in range(index + 1)]
    finally:
        localizer.close()
    poses = [output.estimate for output in outputs if output.estimate is not None]
    if outputs[-1].estimate is None:
        raise LocalizerError(f"frame {index} has no pose: {outputs[-1].reason}")
    return part.read(index), poses


def points_in_view(scene: MapScene, frame: Frame, T_map_cam: SE3) -> tuple[Array, Array, Array]:
    """Points that the nearest keyframes saw: (K, 2) pixels in the frame, (K,) depths, (K, 3) places in the map."""
    T_map_refined = scene.refined_pose(T_map_cam)
    points = scene.point_map
    seen = points.observations_of(scene.nearest_keyframes(T_map_refined, KEYFRAMES))
    indices = np.unique(points.observation_point[seen])
    p_map = points.points[indices].astype(np.float64)
    T_refined_map = T_map_refined.inverse()
    p_refined = p_map @ T_refined_map.R.T + T_refined_map.t
    in_front = p_refined[:, 2] > 0.05
    p_map, p_refined = p_map[in_front], p_refined[in_front]
    xy = projected(scene, frame.camera, p_refined)
    size = np.array([frame.camera.width_px, frame.camera.height_px])
    inside = np.all((xy > 0.0) & (xy < size - 1.0), axis=1)
    return xy[inside], p_refined[inside, 2], p_map[inside]


def projected(scene: MapScene, camera: Camera, p_refined: Array) -> Array:
    """(K, 2) pixels of points in the refined camera: its lens first, then that of the camera as it was given."""
    rays = p_refined[:, :2] / p_refined[:, 2:]
    refinement = scene.point_map.camera.refinement
    if refinement is not None:
        ideal = _through(refinement, rays)
        K = scene.point_map.camera.given.K
        rays = (ideal - K[:2, 2]) / K[[0, 1], [0, 1]]
    return _through(camera, rays)


def _through(camera: Camera, rays: Array) -> Array:
    rays_3d = np.column_stack([rays, np.ones(len(rays))])
    if camera.model == "equidistant" and camera.distorted:
        xy, _ = cv2.fisheye.projectPoints(
            rays_3d[:, None], np.zeros(3), np.zeros(3), camera.K, camera.distortion[:4]
        )
    else:
        xy, _ = cv2.projectPoints(rays_3d, np.zeros(3), np.zeros(3), camera.K, camera.distortion)
    return np.asarray(xy, dtype=np.float64).reshape(-1, 2)


def frustum(T_map_cam: SE3, camera: Camera, depth: float) -> list[Array]:
    """Lines of a drawn camera, each (2, 3) in the map."""
    w, h = camera.width_px - 0.5, camera.height_px - 0.5
    corners = np.array([[-0.5, -0.5, 1.0], [w, -0.5, 1.0], [w, h, 1.0], [-0.5, h, 1.0]])
    rays = corners @ np.linalg.inv(camera.K).T * depth
    ends = rays @ T_map_cam.R.T + T_map_cam.t
    edges = [np.stack([T_map_cam.t, end]) for end in ends]
    return edges + [np.stack([ends[i], ends[(i + 1) % 4]]) for i in range(4)]


def draw(scene: MapScene, frame: Frame, poses: list[PoseEstimate], credit: str) -> Figure:
    """The picture: image on the left, map on the right."""
    now = poses[-1]
    xy, depth, p_map = points_in_view(scene, frame, now.T_map_cam)
    image = to_rgb(frame.image)
    figure = Figure(figsize=(12.0, 4.9), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.34, 1.0))
    left.imshow(image)
    far_first = np.argsort(-depth)
    near, far = np.percentile(depth, [2, 98])
    colours = {"c": depth[far_first], "cmap": "turbo_r", "vmin": near, "vmax": far}
    left.scatter(*xy[far_first].T, s=13, linewidths=0.4, edgecolors="black", **colours)
    left.set_xlim(-0.5, image.shape[1] - 0.5)
    left.set_ylim(image.shape[0] - 0.5, -0.5)
    left.axis("off")
    left.set_title(f"{len(xy)} map points where the pose puts them; colour is depth", fontsize=11, loc="left")
    _draw_map(right, scene, frame, poses, p_map[far_first], colours)
    sigma_m, sigma_deg = sigmas(now)
    right.set_title(
        f"pose in the map, 1 sigma {100 * sigma_m:.1f} cm, {sigma_deg:.1f}°", fontsize=11, loc="left"
    )
    if credit:
        figure.text(0.995, 0.005, credit, ha="right", va="bottom", fontsize=7, color="#666666")
    return figure


def sigmas(pose: PoseEstimate) -> tuple[float, float]:
    """Largest standard deviations of position (metres) and rotation (degrees)."""
    if pose.covariance is None:
        raise LocalizerError("the pose has no covariance")
    position, rotation = pose.covariance[3:, 3:], pose.covariance[:3, :3]
    root = [float(np.sqrt(np.linalg.eigvalsh(part)[-1])) for part in (position, rotation)]
    return root[0], float(np.degrees(root[1]))


def _draw_map(
    ax: Axes, scene: MapScene, frame: Frame, poses: list[PoseEstimate], seen: Array, colours: dict[str, Any]
) -> None:
    """The map from above; points in view have the colours that they have in the image."""
    point_map = scene.point_map
    view, _ = map_views([SE3.from_matrix(T) for T in point_map.T_map_cam])
    axes = (view.right, view.up.axis)
    keyframes = point_map.T_map_cam[:, :3, 3]
    path = np.array([pose.T_map_cam.t for pose in poses])
    ax.plot(*point_map.points[:, axes].T, ".", ms=1.5, color=MAPPED, zorder=1, label="map points")
    ax.scatter(seen[:, view.right], seen[:, view.up.axis], s=5, zorder=2, **colours)
    ax.plot(*keyframes[:, axes].T, ".", ms=4, color=TRUE, zorder=3, label="keyframes")
    ax.plot(*path[:, axes].T, color=SMOOTHED, lw=2.0, zorder=4, label="path so far")
    lines = frustum(poses[-1].T_map_cam, frame.camera, FRUSTUM_DEPTH * point_map.median_depth)
    ax.add_collection(LineCollection([line[:, axes] for line in lines], colors="#c62828", lw=2.0, zorder=5))
    # Far points are few, and would shrink the rest to a dot.
    shown = np.concatenate([keyframes, path, *(np.percentile(seen, [[2], [98]], axis=0))])
    low, high = shown.min(axis=0)[list(axes)], shown.max(axis=0)[list(axes)]
    margin = 0.12 * float(np.max(high - low))
    label_axes(ax, view, "")
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(frameon=False, fontsize=8, loc="best", markerscale=2)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--frame", type=int, default=30, help="index of the frame to show")
    parser.add_argument("--credit", default="", help="written below the picture")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    frame, poses = localised(arguments.scene, arguments.source, arguments.split, arguments.frame)
    figure = draw(MapScene.open(arguments.scene), frame, poses, arguments.credit)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
