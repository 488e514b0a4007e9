"""What is drawn into a rerun recording: the map, trajectories and cameras. Imported late, as rerun is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, ConfigError
from localizer_ros.evaluation.map_views import MAPPED_CAMERA, limits, map_views, wedges
from localizer_ros.evaluation.result_content import Content, gaps

APPLICATION = "localizer_ros"
_POINTS = (150, 158, 166)


def log_result(content: Content, out: Path | None, colours: Mapping[str, str]) -> None:
    """Write a result to a file, or to a viewer that is started.

    Args:
        content: the result.
        out: the file; None = a viewer.
        colours: of its trajectories, as #rrggbb.

    Raises:
        ConfigError: the viewer does not start.
    """
    recording = rr.RecordingStream(APPLICATION)
    if out is not None:
        recording.save(str(out))
    else:
        try:
            recording.spawn()
        except Exception as error:  # the viewer's own errors have no base class in common
            raise ConfigError(f"view: the rerun viewer does not start ({error}); use --out FILE") from error
    log_map(recording, content)
    starts_ns = [int(t.stamps_ns[0]) for t in content.trajectories.values() if len(t)]
    for name, trajectory in content.trajectories.items():
        if len(trajectory):
            if content.camera is not None:
                log_camera(recording, f"map/{name}/camera", content.camera)
            _log_trajectory(recording, f"map/{name}", trajectory, rgb(colours[name]), min(starts_ns))
    recording.flush()


def log_map(recording: Any, content: Content) -> None:
    """The map at ``map``: which way is up, its points, and the cameras that it was made of."""
    vertical = map_views(content.poses)[1].up
    upwards = f"RIGHT_HAND_{'XYZ'[vertical.axis]}_{'DOWN' if vertical.flipped else 'UP'}"
    recording.log("map", getattr(rr.ViewCoordinates, upwards), static=True)
    if content.points is not None:
        recording.log("map/points", rr.Points3D(content.points, colors=_POINTS, radii=0.01), static=True)
    if content.mapping:
        low, high = limits(content.poses, None)
        cameras = wedges(content.mapping, max(float(np.max(high - low)) / 40.0, 0.05))
        recording.log("map/mapping", rr.LineStrips3D(cameras, colors=rgb(MAPPED_CAMERA)), static=True)


def log_camera(recording: Any, entity: str, camera: Camera, static: bool = True) -> None:
    """Its frustum, where :func:`log_pose` puts the entity; one that is not static can be cleared."""
    size = [camera.width_px, camera.height_px]
    pinhole = rr.Pinhole(image_from_camera=camera.K, resolution=size, image_plane_distance=0.2)
    recording.log(entity, pinhole, static=static)


def log_pose(recording: Any, entity: str, T: SE3) -> None:
    """Where an entity is."""
    recording.log(entity, rr.Transform3D(translation=T.t, mat3x3=T.R))


def rgb(colour: str) -> list[int]:
    """The numbers of a colour that is written as #rrggbb."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _log_trajectory(
    recording: Any, entity: str, trajectory: Trajectory, colour: list[int], start_ns: int
) -> None:
    strips = np.split(trajectory.positions, gaps(trajectory))
    recording.log(f"{entity}/path", rr.LineStrips3D(strips, colors=colour, radii=0.008), static=True)
    for stamp_ns, T in zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True):
        recording.set_time("time", duration=(stamp_ns - start_ns) * 1e-9)
        log_pose(recording, f"{entity}/camera", T)
