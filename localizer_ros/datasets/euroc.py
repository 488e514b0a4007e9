"""EuRoC and other recordings in ASL form (TUM-VI): ``mav0/cam0/{data.csv,data,sensor.yaml}`` and a ground truth.

The path is the folder that holds ``mav0``, or one that holds ``cam0``. Poses are those of the body or of a sensor on
it (``state_groundtruth_estimate0``, ``vicon0``, ``mocap0``), in that order, and become the camera's through the
``T_BS`` of both ``sensor.yaml``; the camera's pose on the body is the recording's ``T_base_cam``. A ``camchain.yaml``
of Kalibr knows the camera where its ``sensor.yaml`` does not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.files import is_there, natural_key, read_text, read_yaml
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory, whole_ns
from localizer_ros.core.types import Camera, ConfigError, SourceError
from localizer_ros.datasets.calibration import camera_from_calibration
from localizer_ros.datasets.folder import FolderSource, ImageFile
from localizer_ros.datasets.pose_coverage import MAX_GAP_NS, why_missing
from localizer_ros.datasets.source import FrameRecord, choose_camera

# Where poses may be, and what they are; the estimate that was fused from all is the best.
_TRUTHS = {
    "state_groundtruth_estimate0": "state estimate (EuRoC)",
    "vicon0": "motion capture",
    "mocap0": "motion capture",
}


def open_recording(path: Path, camera: str | None = None) -> FolderSource:
    """Open a recording.

    Args:
        path: see the module.
        camera: its folder, ``cam0`` where nobody says.

    Raises:
        SourceError: files missing or malformed; the message names file and line.
    """
    root = path / "mav0" if (path / "mav0").is_dir() else path
    known = sorted((file.parent.name for file in root.glob("cam*/data.csv")), key=natural_key)
    if not known:
        raise SourceError(f"{path}: expected mav0/cam0/data.csv")
    name = choose_camera(path, known, camera, ("cam0",))
    intrinsics, T_body_cam = _read_camera(root, name)
    truth, what = _read_truth(root)
    listing = root / name / "data.csv"
    frames: dict[int, ImageFile] = {}
    for number, fields in _rows(listing):
        try:
            stamp_ns, file = whole_ns(fields[0]), fields[1]
        except (ValueError, IndexError) as error:
            raise SourceError(f"{listing}:{number}: expected 'timestamp [ns], filename'") from error
        T_map_body = None if truth is None else truth.at(stamp_ns, MAX_GAP_NS)
        T_map_cam = None if T_map_body is None or T_body_cam is None else T_map_body @ T_body_cam
        record = FrameRecord(f"{name}/data/{file}", path.resolve().name, stamp_ns, T_map_cam)
        frames[stamp_ns] = ImageFile(record, root / name / "data" / file, intrinsics)
    ordered = [frames[stamp_ns] for stamp_ns in sorted(frames)]
    source = FolderSource(path, "euroc", ordered, what)
    source.T_base_cam = T_body_cam
    source.pose_problem = _pose_problem(root, name, truth, T_body_cam, sorted(frames))
    return source


def _pose_problem(
    root: Path, name: str, truth: Trajectory | None, T_body_cam: SE3 | None, stamps_ns: Sequence[int]
) -> str | None:
    """Why no image has a pose, None where some have or nobody would expect it."""
    if truth is None:
        return None
    if T_body_cam is None:
        return f"{root / name / 'sensor.yaml'}: has no T_BS, so poses of the body say nothing of the camera"
    missing = sum(truth.at(stamp_ns, MAX_GAP_NS) is None for stamp_ns in stamps_ns)
    if missing < len(stamps_ns):
        return None
    return why_missing("ground truth", truth.stamps_ns, stamps_ns, missing)


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """(line number, fields) of a CSV file with a heading."""
    rows = enumerate(csv.reader(io.StringIO(read_text(file, SourceError))), start=1)
    try:
        trimmed = [(number, [field.strip() for field in fields]) for number, fields in rows]
    except csv.Error as error:
        raise SourceError(f"{file}: cannot be read as CSV ({error})") from error
    return [(number, fields) for number, fields in trimmed if any(fields) and not fields[0].startswith("#")]


# --- cameras ---


def _read_camera(root: Path, name: str) -> tuple[Camera | None, SE3 | None]:
    """Intrinsics and pose on the body, each None where no file tells."""
    file = root / name / "sensor.yaml"
    values = read_yaml(file, SourceError) if is_there(file) else {}
    camera = _intrinsics(file, values) if "intrinsics" in values else None
    T_body_cam = _matrix(file, values["T_BS"]) if "T_BS" in values else None
    if camera is not None and T_body_cam is not None:
        return camera, T_body_cam
    # Inside the recording only: what lies beside it is of other recordings.
    recording = root.parent if root.name == "mav0" else root
    chain = next((f for f in sorted(recording.glob("**/camchain*.yaml")) if f.is_file()), None)
    if chain is None:
        return camera, T_body_cam
    known = read_yaml(chain, SourceError).get(name)
    if not isinstance(known, dict):
        return camera, T_body_cam
    if camera is None and "intrinsics" in known:
        camera = _intrinsics(chain, known)
    if T_body_cam is None and "T_cam_imu" in known:
        T_body_cam = _matrix(chain, known["T_cam_imu"]).inverse()
    return camera, T_body_cam


def _intrinsics(file: Path, values: Mapping[str, Any]) -> Camera:
    model = str(values.get("distortion_model", "none"))
    try:
        width, height = (int(v) for v in values["resolution"])
        fx, fy, cx, cy = (float(v) for v in values["intrinsics"])
        D = values.get("distortion_coefficients", values.get("distortion_coeffs", ()))
        kind = str(values.get("camera_model", "pinhole"))
        if kind != "pinhole":
            raise ConfigError(f"camera: expected the model pinhole, got {kind!r}")
        K = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
        return camera_from_calibration(width, height, model, [float(v) for v in D], K)
    except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise SourceError(
            f"{file}: expected camera_model: pinhole, resolution [width, height], intrinsics [fx, fy, cx, cy] and "
            f"distortion_model with its coefficients ({what})"
        ) from error


def _matrix(file: Path, value: Any) -> SE3:
    """A pose of 16 values, row by row: ``{data: [...]}``, a list, or a list of rows."""
    try:
        data = value["data"] if isinstance(value, dict) else value
        return SE3.from_matrix(np.asarray(data, dtype=np.float64).reshape(4, 4))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{file}: expected a pose of 4x4 values ({error})") from error


# --- poses ---


def _read_truth(root: Path) -> tuple[Trajectory | None, str]:
    """Poses of the body over time, and what they are; None and ``none`` where there are none."""
    for folder, what in _TRUTHS.items():
        file = root / folder / "data.csv"
        if not is_there(file):
            continue
        sensor = root / folder / "sensor.yaml"
        values = read_yaml(sensor, SourceError) if is_there(sensor) else {}
        # A marker on the body has a place of its own there.
        T_sensor_body = _matrix(sensor, values["T_BS"]).inverse() if "T_BS" in values else SE3.identity()
        items = []
        for number, fields in _rows(file):
            try:
                stamp_ns = whole_ns(fields[0])
                x, y, z, qw, qx, qy, qz = (float(v) for v in fields[1:8])
                T_map_sensor = SE3.from_unit_quaternion([x, y, z], [qx, qy, qz, qw])
            except (ValueError, IndexError) as error:
                raise SourceError(
                    f"{file}:{number}: expected 'timestamp [ns], x, y, z, qw, qx, qy, qz' ({error})"
                ) from error
            items.append((stamp_ns, T_map_sensor @ T_sensor_body))
        return Trajectory.from_items(items), what
    return None, "none"
