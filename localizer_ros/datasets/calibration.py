"""Cameras from ROS calibrations: ``camera.yaml`` files and ``sensor_msgs/CameraInfo`` values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from localizer_ros.core.types import Camera, ConfigError, SourceError

# ROS name -> name of core.types.Camera. ``fisheye`` is what some tools call the equidistant model.
_MODELS = {
    "plumb_bob": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "fisheye": "equidistant",
    "": "plumb_bob",
}


def camera_from_calibration(
    width_px: int,
    height_px: int,
    model: str,
    D: Sequence[float],
    K: Sequence[float],
    P: Sequence[float] = (),
    rectified: bool = False,
) -> Camera:
    """A camera from the values of a ROS calibration.

    Args:
        width_px: image width.
        height_px: image height.
        model: distortion model as in ``sensor_msgs/distortion_models.hpp``.
        D: distortion coefficients.
        K: 9 values, row-major.
        P: 12 values, row-major; needed when ``rectified``.
        rectified: the images are rectified already, so that P describes them and D does not apply.

    Raises:
        ConfigError: unknown model, wrong number of values, or an uncalibrated camera (K is zero).
    """
    if len(K) != 9:
        raise ConfigError(f"camera: expected 9 values of the camera matrix, got {len(K)}")
    if rectified:
        if len(P) != 12 or P[0] <= 0:
            raise ConfigError("camera: images are rectified but the projection matrix P is not set")
        return Camera(width_px, height_px, np.array(P, dtype=np.float64).reshape(3, 4)[:, :3])
    if not any(K):
        raise ConfigError("camera: is not calibrated (the camera matrix K is zero)")
    if model not in _MODELS:
        raise ConfigError(
            f"camera: unknown distortion model {model!r}; known: {', '.join(filter(None, _MODELS))}"
        )
    counts = {"equidistant": (0, 4), "plumb_bob": (0, 4, 5, 8), "rational_polynomial": (0, 8, 12, 14)}
    name = _MODELS[model]
    if len(D) not in counts[name]:
        raise ConfigError(
            f"camera: distortion model {name} expects {' or '.join(map(str, counts[name]))} coefficients, "
            f"got {len(D)}"
        )
    return Camera(
        width_px, height_px, np.array(K, dtype=np.float64).reshape(3, 3), np.array(D, dtype=np.float64), name
    )


def read_camera_yaml(path: Path) -> Camera:
    """The camera of a ROS calibration file (as ``camera_calibration`` writes it).

    Raises:
        SourceError: unreadable, a field missing or malformed; the message names the file.
    """
    try:
        values: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    try:
        return camera_from_calibration(
            int(values["image_width"]),
            int(values["image_height"]),
            str(values.get("distortion_model", "")),
            _data(values.get("distortion_coefficients", ())),
            _data(values["camera_matrix"]),
        )
    except ConfigError as error:
        raise SourceError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise SourceError(
            f"{path}: expected a ROS camera calibration with image_width, image_height, camera_matrix, "
            f"distortion_model and distortion_coefficients ({what})"
        ) from error


def write_camera_yaml(path: Path, camera: Camera) -> None:
    """Write a ROS calibration file that :func:`read_camera_yaml` reads back."""
    fx, cx, fy, cy = camera.K[0, 0], camera.K[0, 2], camera.K[1, 1], camera.K[1, 2]
    values = {
        "image_width": camera.width_px,
        "image_height": camera.height_px,
        "camera_name": "camera",
        "camera_matrix": _matrix(3, 3, camera.K.reshape(-1).tolist()),
        "distortion_model": camera.model,
        "distortion_coefficients": _matrix(1, camera.distortion.size, camera.distortion.tolist()),
        "rectification_matrix": _matrix(3, 3, np.eye(3).reshape(-1).tolist()),
        "projection_matrix": _matrix(3, 4, [float(v) for v in (fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0)]),
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None))


def _matrix(rows: int, cols: int, data: list[float]) -> dict[str, Any]:
    return {"rows": rows, "cols": cols, "data": data}


def _data(value: Any) -> list[float]:
    """Values of ``{rows, cols, data: [...]}`` or of a plain, possibly nested, list."""
    if isinstance(value, dict):
        value = value["data"]
    return [float(v) for v in np.asarray(value, dtype=np.float64).reshape(-1)]
