"""The camera nearest to a lens model that OpenCV does not have (COLMAP's FOV, THIN_PRISM_FISHEYE and others)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import least_squares

from localizer_ros.core.signals import take_back_sigterm
from localizer_ros.core.types import Array, Camera, ConfigError

# Share of the image's width (0.3 px of 640): above this, pixels of the fitted camera would be further off than
# keypoints are found.
_MOST_OFF = 0.3 / 640.0
# Points a side of the grid that is fitted.
_GRID = 24
# (model, number of coefficients) in order of trying: the fisheye first, for what lies beyond 90 degrees from side to
# side; then the one that has tangential and thin-prism terms.
_TRIED = (("equidistant", 4), ("rational_polynomial", 12))


def nearest_camera(model: str, width_px: int, height_px: int, params: Sequence[float]) -> Camera:
    """The camera whose pixels agree with those of a model of COLMAP all over the image.

    Raises:
        ConfigError: COLMAP does not know the model or its parameters, or nothing agrees to a fraction of a pixel.
    """
    rays, pixels = _grid(model, width_px, height_px, params)
    best: tuple[float, Camera] | None = None
    for name, count in _TRIED:
        error_px, camera = _fit(name, count, rays, pixels, (width_px, height_px))
        if error_px <= _MOST_OFF * width_px:
            return camera
        if best is None or error_px < best[0]:
            best = error_px, camera
    assert best is not None
    raise ConfigError(
        f"camera: no OpenCV model comes nearer to this {model} than {best[0]:.1f} px (limit "
        f"{_MOST_OFF * width_px:.1f} px); undistort the images with COLMAP"
    )


def _grid(model: str, width_px: int, height_px: int, params: Sequence[float]) -> tuple[Array, Array]:
    """(N, 2) rays at depth one and (N, 2) pixels, OpenCV's, over the part of the image that sees ahead."""
    import pycolmap

    take_back_sigterm()

    xs, ys = np.linspace(0.0, width_px, _GRID), np.linspace(0.0, height_px, _GRID)
    corner = np.stack([v.reshape(-1) for v in np.meshgrid(xs, ys)], axis=1)
    try:
        camera = pycolmap.Camera(model=model, width=width_px, height=height_px, params=list(params))
        rays = np.asarray(camera.cam_from_img(corner), dtype=np.float64).reshape(-1, 2)
    except Exception as error:
        # pycolmap throws whatever its C++ threw.
        raise ConfigError(f"camera: COLMAP has no model {model!r} with {len(params)} parameters") from error
    seen = np.all(np.isfinite(rays), axis=1) & (np.linalg.norm(rays, axis=1) < np.tan(np.deg2rad(80.0)))
    if np.count_nonzero(seen) < _GRID * _GRID // 4:
        raise ConfigError(f"camera: model {model!r}: {list(params)} are no parameters of a lens")
    # COLMAP puts the origin on the corner of the first pixel, OpenCV on its centre.
    return rays[seen], corner[seen] - 0.5


def _fit(name: str, count: int, rays: Array, pixels: Array, size_px: tuple[int, int]) -> tuple[float, Camera]:
    """Largest distance in pixels, and the camera of a model that comes nearest."""
    points = np.column_stack([rays, np.ones(len(rays))]).reshape(-1, 1, 3)
    zero = np.zeros(3)

    def project(values: Array) -> Array:
        fx, fy, cx, cy = values[:4]
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        if name == "equidistant":
            return np.asarray(cv2.fisheye.projectPoints(points, zero, zero, K, values[4:])[0]).reshape(-1, 2)
        return np.asarray(cv2.projectPoints(points, zero, zero, K, values[4:])[0]).reshape(-1, 2)

    def error(values: Array) -> Array:
        with np.errstate(all="ignore"):
            found = np.nan_to_num(project(values) - pixels, nan=1e6, posinf=1e6, neginf=-1e6)
        return np.asarray(found.reshape(-1))

    near = np.linalg.norm(rays, axis=1) <= np.median(np.linalg.norm(rays, axis=1))
    centre = 0.5 * (np.array(size_px) - 1.0)
    radius_px = np.median(np.linalg.norm((pixels - centre)[near], axis=1))
    f = float(radius_px / np.median(np.linalg.norm(rays[near], axis=1)))
    start = np.concatenate([[f, f, *centre], np.zeros(count)])
    solved = least_squares(error, start, x_scale="jac", max_nfev=200).x
    K = np.array([[solved[0], 0.0, solved[2]], [0.0, solved[1], solved[3]], [0.0, 0.0, 1.0]])
    worst = float(np.max(np.linalg.norm(error(solved).reshape(-1, 2), axis=1)))
    if not np.all(np.isfinite(solved)) or solved[0] <= 0.0 or solved[1] <= 0.0:
        return float("inf"), Camera.pinhole(*size_px, f, f, *centre)
    return worst, Camera(*size_px, K, solved[4:], name)
