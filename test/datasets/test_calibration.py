"""Cameras from calibrations."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import CAMERA

from localizer_ros.core.types import Camera
from localizer_ros.datasets.calibration import camera_from_colmap, camera_to_colmap


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
