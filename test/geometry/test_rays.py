"""From pixels to rays, and what a map has found out about its camera."""

import numpy as np
import pytest

from localizer_ros.core.types import Camera
from localizer_ros.geometry.rays import RayCamera, undistorted


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_undistortion_inverts_projection_at_the_corners(model: str) -> None:
    import cv2

    distortion = [0.2624, -0.9531, -0.0054, 0.0026, 1.1633] if model == "plumb_bob" else [0.1, -0.02, 0.01, 0]
    K = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
    camera = Camera(640, 480, K, np.array(distortion), model)
    xy = np.array([[0.0, 0.0], [639.0, 0.0], [0.0, 479.0], [639.0, 479.0], [320.0, 240.0]])
    rays = np.concatenate([undistorted(camera, xy), np.ones((5, 1))], axis=1)
    project = cv2.projectPoints if model == "plumb_bob" else cv2.fisheye.projectPoints
    back = project(rays[:, None], np.zeros(3), np.zeros(3), K, np.array(distortion))[0].reshape(-1, 2)
    assert np.abs(back - xy).max() < 1e-4


def test_a_refinement_applies_to_its_own_camera_only() -> None:
    camera = Camera.pinhole(640, 480, 500, 500, 320, 240)
    refined = Camera(
        640, 480, np.array([[510.0, 0, 322], [0, 510, 238], [0, 0, 1]]), np.array([0.01, 0, 0, 0])
    )
    ray_camera = RayCamera(camera, refined)
    xy = np.array([[100.0, 50.0]])
    assert np.allclose(ray_camera.rays(camera, xy), undistorted(refined, xy))
    other = Camera.pinhole(640, 480, 600, 600, 320, 240)
    assert np.allclose(ray_camera.rays(other, xy), undistorted(other, xy))
    half = camera.scaled(320, 240)
    assert np.allclose(ray_camera.rays(half, (xy + 0.5) / 2 - 0.5), ray_camera.rays(camera, xy))
    assert np.allclose(
        RayCamera.from_dict(ray_camera.to_dict()).rays(camera, xy), ray_camera.rays(camera, xy)
    )
