"""Cameras from calibrations."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import CAMERA

from localizer_ros.core.types import Camera, ConfigError
from localizer_ros.datasets.calibration import camera_from_calibration, camera_from_colmap, camera_to_colmap

K = (208.0, 0.0, 160.0, 0.0, 208.0, 120.0, 0.0, 0.0, 1.0)
FIVE = (-0.03, 0.035, -0.0001, -0.0001, -0.012)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("plumb_bob", []),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.0]),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.3]),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.3, 0.01, 0.02, 0.03]),
        ("equidistant", [0.1, -0.2, 0.03, -0.01]),
    ],
)
def test_colmap_cameras_project_alike(model, distortion):
    cv2 = pytest.importorskip("cv2")
    camera = Camera(64, 48, CAMERA.K, np.array(distortion), model)
    again = camera_from_colmap(camera_to_colmap(camera)[0], 64, 48, camera_to_colmap(camera)[1])
    points = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 4], (20, 1, 3))

    def project(c):
        if c.model == "equidistant":
            return cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), c.K, c.distortion)[0]
        return cv2.projectPoints(points, np.zeros(3), np.zeros(3), c.K, c.distortion)[0]

    np.testing.assert_allclose(project(again), project(camera), atol=1e-9)


@pytest.mark.parametrize(
    ("model", "D", "expected"),
    [
        ("equidistant", (-0.0093, 0.0462, -0.0434, 0.0080, 0.0), (-0.0093, 0.0462, -0.0434, 0.0080)),
        ("equidistant", (0.01, 0, 0, 0, 0, 0, 0, 0), (0.01, 0, 0, 0)),
        ("equidistant", (0.01, 0.02), (0.01, 0.02, 0, 0)),
        ("plumb_bob", (*FIVE, 0, 0, 0), (*FIVE, 0, 0, 0)),
        ("plumb_bob", (*FIVE, *[0] * 7), (*FIVE, *[0] * 7)),
        ("plumb_bob", [0.0] * 14, [0.0] * 14),
        ("plumb_bob", (-0.03,), (-0.03, 0, 0, 0)),
        ("plumb_bob", [0.0] * 20, ()),
        ("rational_polynomial", FIVE, FIVE),
        ("none", [0.0] * 5, [0.0] * 5),
        ("kannala_brandt", [0.0] * 4, [0.0] * 4),
    ],
)
def test_missing_coefficients_and_zeros_at_the_end_say_nothing(model, D, expected):
    camera = camera_from_calibration(320, 240, model, D, K)
    np.testing.assert_array_equal(camera.distortion, expected)


@pytest.mark.parametrize(
    ("model", "D", "says"),
    [
        ("equidistant", [0.1] * 5, "at most 4 coefficients, got 5"),
        ("plumb_bob", [0.1] * 15, "at most 14 coefficients, got 15"),
        ("none", [0.1], "'none' has no coefficients"),
        ("inverse_lens", [], "unknown distortion model 'inverse_lens'"),
    ],
)
def test_coefficients_that_a_model_has_not(model, D, says):
    with pytest.raises(ConfigError, match=says):
        camera_from_calibration(320, 240, model, D, K)


@pytest.mark.parametrize(
    "broken",
    [
        (208, 0, 160, 0, 208, 120, 0, 0, 0),
        (208, 0, 160, 0, 208, 120, 1, 0, 1),
        (208, 0, 160, 5, 208, 120, 0, 0, 1),
        (-208, 0, 160, 0, 208, 120, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 0, 0, 0),
        (208, 0, float("inf"), 0, 208, 120, 0, 0, 1),
    ],
)
def test_a_matrix_that_no_camera_has_is_refused_everywhere(broken):
    with pytest.raises(ConfigError):
        camera_from_calibration(320, 240, "plumb_bob", [], broken)
    with pytest.raises(ConfigError):
        Camera(320, 240, np.array(broken, dtype=np.float64).reshape(3, 3))
    values = {"width_px": 320, "height_px": 240, "K": list(broken), "distortion": [], "model": "plumb_bob"}
    with pytest.raises(ConfigError):
        Camera.from_dict(values)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("FOV", [208.0, 208.0, 160.0, 120.0, 0.9]),
        ("FOV", [208.0, 208.0, 160.0, 120.0, 0.01]),
        ("THIN_PRISM_FISHEYE", [180.0, 181.0, 160.0, 121.0, 0.02, -0.01, 0, 0, 0.002, 0.001, 0, 0]),
        (
            "THIN_PRISM_FISHEYE",
            [340.0, 340.0, 160.0, 121.0, 0.2, 0.2, -0.0003, 0.0004, 0.05, 0.2, 2e-4, -7e-4],
        ),
        ("SIMPLE_FISHEYE", [200.0, 160.0, 120.0]),
    ],
)
def test_lenses_of_colmap_become_the_nearest_of_opencv(model, params):
    cv2 = pytest.importorskip("cv2")
    pycolmap = pytest.importorskip("pycolmap")
    camera = camera_from_colmap(model, 320, 240, params)
    pixels = np.random.default_rng(0).uniform([0, 0], [320, 240], (200, 2))
    rays = pycolmap.Camera(model=model, width=320, height=240, params=params).cam_from_img(pixels)
    points = np.column_stack([rays, np.ones(len(rays))]).reshape(-1, 1, 3)
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    found = project(points, np.zeros(3), np.zeros(3), camera.K, camera.distortion)[0].reshape(-1, 2)
    # COLMAP's pixel centres lie at 0.5.
    np.testing.assert_allclose(found + 0.5, pixels, atol=0.16)


def test_a_lens_that_opencv_has_not_is_refused():
    pytest.importorskip("pycolmap")
    twisted = [120.0, 120.0, 160.0, 120.0, 0.01, 0.02, -0.03, 0.04, 0.0, 0.0, 0.02, -0.03]
    with pytest.raises(ConfigError, match=r"nearer to this THIN_PRISM_FISHEYE than .* px"):
        camera_from_colmap("THIN_PRISM_FISHEYE", 320, 240, twisted)
    with pytest.raises(ConfigError, match="no model 'NIX'"):
        camera_from_colmap("NIX", 320, 240, [1.0])
