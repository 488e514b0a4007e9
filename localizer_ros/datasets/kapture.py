"""kapture (text, version 1.x): ``sensors/{sensors,records_camera,trajectories,rigs}.txt``,
``sensors/records_data/``.

Poses are world to sensor; those of a rig become its camera's through ``rigs.txt``. Timestamps are
nanoseconds, unless they are so close together that they can only be frame numbers: those count as 30 Hz.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from localizer_ros.core.files import is_there, natural_key
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, ConfigError, SourceError
from localizer_ros.datasets.calibration import camera_from_colmap
from localizer_ros.datasets.folder import FolderSource, ImageFile, read_lines
from localizer_ros.datasets.invented_times import invented_ns
from localizer_ros.datasets.source import FrameRecord, Stamps, choose_camera

# No camera runs at 10 kHz.
_SHORTEST_STEP_NS = 100_000


def open_recording(path: Path, camera: str | None = None) -> FolderSource:
    """Open a kapture folder.

    Args:
        path: the folder that holds ``sensors``.
        camera: id of the sensor; needed where several have images.

    Raises:
        SourceError: files missing or malformed (file and line are named), or several cameras to choose from.
    """
    sensors = path / "sensors"
    listing = sensors / "records_camera.txt"
    images: dict[str, list[tuple[int, str]]] = {}
    for number, fields in _rows(listing):
        try:
            timestamp, device, name = fields
            images.setdefault(device, []).append((int(timestamp), name))
        except ValueError as error:
            raise SourceError(f"{listing}:{number}: expected 'timestamp, device_id, image_path'") from error
    sensor = choose_camera(path, sorted(images, key=natural_key), camera)
    intrinsics = _read_camera(sensors / "sensors.txt", sensor)
    poses = _read_poses(sensors, sensor)

    taken = sorted(images[sensor])
    steps = np.diff([timestamp for timestamp, _ in taken])
    numbered = bool(len(steps)) and float(np.median(steps)) < _SHORTEST_STEP_NS
    sequences = sorted({name.rpartition("/")[0] for _, name in taken}, key=natural_key)
    records = [
        FrameRecord(
            name=name,
            sequence=name.rpartition("/")[0] or path.resolve().name,
            stamp_ns=invented_ns(timestamp) if numbered else timestamp,
            T_map_cam=poses.get(timestamp),
        )
        for timestamp, name in taken
    ]
    # Frame numbers often start anew in every folder, and sequences must stay whole.
    if len({timestamp for timestamp, _ in taken}) < len(taken):
        raise SourceError(f"{listing}: sensor {sensor!r} has two images at one timestamp")
    if len(sequences) > 1 and _interleaved(records):
        raise SourceError(
            f"{listing}: folders {', '.join(sequences)} overlap in time; expected one after the other"
        )
    frames = [ImageFile(record, sensors / "records_data" / record.name, intrinsics) for record in records]
    stamps: Stamps = "invented" if numbered else "recorded"
    return FolderSource(path, "kapture", frames, "trajectories.txt", stamps)


def _interleaved(records: list[FrameRecord]) -> bool:
    """True when a sequence goes on after another began."""
    changes = sum(a.sequence != b.sequence for a, b in pairwise(records))
    return changes >= len({record.sequence for record in records})


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    return [(number, [field.strip() for field in line.split(",")]) for number, line in read_lines(file)]


def _read_camera(file: Path, sensor: str) -> Camera | None:
    """The camera, or None when its model is UNKNOWN_CAMERA."""
    for number, fields in _rows(file):
        if fields[0] != sensor:
            continue
        try:
            _, _, kind, model, width, height, *params = fields
            if kind != "camera":
                raise ValueError(f"sensor {sensor!r} is a {kind}")
            if model == "UNKNOWN_CAMERA":
                return None
            return camera_from_colmap(model, int(width), int(height), [float(value) for value in params])
        except (ValueError, ConfigError) as error:
            raise SourceError(
                f"{file}:{number}: expected 'id, name, camera, MODEL, width, height, params' ({error})"
            ) from error
    raise SourceError(f"{file}: no sensor {sensor!r}")


def _read_poses(sensors: Path, sensor: str) -> dict[int, SE3]:
    """``T_map_cam`` by timestamp."""
    file = sensors / "trajectories.txt"
    if not is_there(file):
        return {}
    T_cam_device = {sensor: SE3.identity()}
    rigs = sensors / "rigs.txt"
    if is_there(rigs):
        for number, fields in _rows(rigs):
            if len(fields) == 9 and fields[1] == sensor:
                T_cam_device[fields[0]] = _pose(fields[2:], rigs, number)
    poses = {}
    for number, fields in _rows(file):
        if len(fields) != 9 or not fields[0].lstrip("-").isdigit():
            raise SourceError(f"{file}:{number}: expected 'timestamp, device_id, qw, qx, qy, qz, tx, ty, tz'")
        if fields[1] in T_cam_device and all(fields[2:]):
            T_cam_map = T_cam_device[fields[1]] @ _pose(fields[2:], file, number)
            poses[int(fields[0])] = T_cam_map.inverse()
    return poses


def _pose(fields: list[str], file: Path, number: int) -> SE3:
    try:
        qw, qx, qy, qz, *t = (float(value) for value in fields)
        return SE3.from_unit_quaternion(t, [qx, qy, qz, qw])
    except ValueError as error:
        raise SourceError(f"{file}:{number}: expected qw, qx, qy, qz, tx, ty, tz ({error})") from error
