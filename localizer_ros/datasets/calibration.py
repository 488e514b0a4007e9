"""Cameras from calibrations: ROS ``camera.yaml`` files, ``sensor_msgs/CameraInfo``, COLMAP's models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from localizer_ros.core.files import read_yaml
from localizer_ros.core.types import Camera, ConfigError, SourceError

# What drivers and calibration tools call a model -> name of core.types.Camera.
_MODELS = {
    "plumb_bob": "plumb_bob",
    "radtan": "plumb_bob",
    "radial-tangential": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
    "": "plumb_bob",
    # No distortion: an ideal pinhole.
    "none": "plumb_bob",
    "pinhole": "plumb_bob",
}
_IDEAL = ("none", "pinhole")


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
    kind = model.strip().lower()
    if kind not in _MODELS:
        raise ConfigError(
            f"camera: unknown distortion model {model!r}; known: {', '.join(filter(None, _MODELS))}"
        )
    if kind in _IDEAL and any(D):
        raise ConfigError(f"camera: distortion model {model!r} has no coefficients, got {list(D)}")
    matrix = np.array(K, dtype=np.float64).reshape(3, 3)
    return Camera(width_px, height_px, matrix, np.array(D, dtype=np.float64), _MODELS[kind])


def camera_from_info(message: Any, rectified: bool = False) -> Camera:
    """The camera of images read out as a ``sensor_msgs/CameraInfo`` says: region of interest, then binning.

    Args:
        message: of ROS 2 or ROS 1, of any library that has the fields.
        rectified: see :func:`camera_from_calibration`.

    Raises:
        ConfigError: as :func:`camera_from_calibration`, or a region of interest outside the image.
    """
    names = "dkp" if hasattr(message, "k") else "DKP"
    D, K, P = ([float(v) for v in getattr(message, name)] for name in names)
    full = camera_from_calibration(
        int(message.width), int(message.height), str(message.distortion_model), D, K, P, rectified
    )
    width, height, matrix, roi = full.width_px, full.height_px, full.K.copy(), message.roi
    if roi.width or roi.height:
        inside = roi.x_offset + roi.width <= width and roi.y_offset + roi.height <= height
        if not (inside and roi.width and roi.height):
            raise ConfigError(
                f"camera: region of interest {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) "
                f"does not lie in the {width}x{height} image"
            )
        matrix[0, 2] -= roi.x_offset
        matrix[1, 2] -= roi.y_offset
        width, height = int(roi.width), int(roi.height)
    camera = Camera(width, height, matrix, full.distortion, full.model)
    binning_x, binning_y = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    if (binning_x, binning_y) == (1, 1):
        return camera
    return camera.scaled(max(1, width // binning_x), max(1, height // binning_y))


# COLMAP's camera models, which kapture shares: number of focal lengths, model, coefficients in OpenCV's
# order.
_COLMAP_MODELS: dict[str, tuple[int, str, int]] = {
    "SIMPLE_PINHOLE": (1, "plumb_bob", 0),
    "PINHOLE": (2, "plumb_bob", 0),
    "SIMPLE_RADIAL": (1, "plumb_bob", 1),
    "RADIAL": (1, "plumb_bob", 2),
    "OPENCV": (2, "plumb_bob", 4),
    "FULL_OPENCV": (2, "rational_polynomial", 8),
    "OPENCV_FISHEYE": (2, "equidistant", 4),
    "SIMPLE_RADIAL_FISHEYE": (1, "equidistant", 1),
    "RADIAL_FISHEYE": (1, "equidistant", 2),
}


def camera_from_colmap(model: str, width_px: int, height_px: int, params: Sequence[float]) -> Camera:
    """A camera from a model name and parameters as COLMAP and kapture write them.

    Raises:
        ConfigError: unknown model, wrong number of parameters, or a lens that OpenCV has no model near enough for.
    """
    if model not in _COLMAP_MODELS:
        # Late: fitting a lens needs an optimiser, which no robot that has a CameraInfo does.
        from localizer_ros.datasets.lens_fit import nearest_camera

        return nearest_camera(model, width_px, height_px, params)
    n_focal, name, n_distortion = _COLMAP_MODELS[model]
    expected = n_focal + 2 + n_distortion
    if len(params) != expected:
        raise ConfigError(f"camera: {model} expects {expected} parameters, got {len(params)}")
    fx, fy = params[0], params[n_focal - 1]
    # COLMAP puts the origin on the corner of the first pixel, OpenCV on its centre.
    cx, cy = params[n_focal] - 0.5, params[n_focal + 1] - 0.5
    distortion = np.zeros({"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[name])
    distortion[:n_distortion] = params[n_focal + 2 :]
    if name == "rational_polynomial" and not np.any(distortion[5:]):
        # COLMAP has no model of its own for plumb_bob's five coefficients.
        name, distortion = "plumb_bob", distortion[:5]
    return Camera(
        width_px,
        height_px,
        np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        distortion if np.any(distortion) else np.zeros(0),
        name,
    )


def camera_to_colmap(camera: Camera) -> tuple[str, list[float]]:
    """Model name and parameters; inverse of :func:`camera_from_colmap`.

    Raises:
        ConfigError: coefficients that COLMAP's models cannot hold.
    """
    K, D = camera.K, np.zeros(14)
    D[: camera.distortion.size] = camera.distortion
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    if not camera.distorted:
        model, n = "PINHOLE", 0
    elif camera.model == "equidistant":
        model, n = "OPENCV_FISHEYE", 4
    elif not np.any(D[4:]):
        model, n = "OPENCV", 4
    elif not np.any(D[8:]):
        model, n = "FULL_OPENCV", 8
    else:
        raise ConfigError("camera: COLMAP has no model with thin-prism or tilt coefficients")
    return model, [float(v) for v in (*params, *D[:n])]


def read_camera_yaml(path: Path) -> Camera:
    """The camera of a ROS calibration file (as ``camera_calibration`` writes it).

    Raises:
        SourceError: unreadable, a field missing or malformed; the message names the file.
    """
    values = read_yaml(path, SourceError)
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
