"""The pose that scene coordinates give."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.refined_camera import RefinedCamera
from localizer_ros.localization.learned.scene_coordinates import CELL_PX, pose_from_coordinates

H, W = 24, 32


K = np.array([[210.0, 0.0, 126.0], [0.0, 208.0, 97.0], [0.0, 0.0, 1.0]])


def some_coordinates(rng: np.random.Generator, refined_camera: RefinedCamera, T_map_cam: SE3) -> np.ndarray:
    """(3, h, w) map coordinates that the cells of a camera see, at depths of 1 to 4 m."""
    xs, ys = np.meshgrid(*(np.arange(n) * CELL_PX + (CELL_PX - 1) / 2 for n in (W, H)))
    rays = np.linalg.inv(refined_camera.K) @ np.stack([xs.ravel(), ys.ravel(), np.ones(H * W)])
    seen = (rays * rng.uniform(1.0, 4.0, H * W)).T
    return ((T_map_cam @ refined_camera.T_cam_refined) @ seen).T.reshape(3, H, W)


@pytest.fixture
def refined_camera(rng: np.random.Generator) -> RefinedCamera:
    return RefinedCamera(K, SE3.exp(rng.normal(0.0, 0.1, 6)))


def test_exact_coordinates_give_the_exact_pose(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    for _ in range(3):
        T_map_cam = SE3.exp(rng.normal(0.0, 1.0, 6))
        points = some_coordinates(rng, refined_camera, T_map_cam).astype(np.float32)
        found = pose_from_coordinates(points, np.zeros((H, W), np.float32), refined_camera)
        assert found is not None
        assert found.T_map_cam.distance_to(T_map_cam) < 1e-4
        assert found.T_map_cam.angle_to(T_map_cam) < 1e-4
        assert np.linalg.eigvalsh(found.covariance).min() > 0.0


def test_the_more_cells_disagree_the_less_sure_the_pose(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    points = some_coordinates(rng, refined_camera, SE3.identity()) + rng.normal(0.0, 0.01, (3, H, W))
    order, away = rng.random((H, W)), rng.normal(0.0, 1.0, (3, H, W))
    sigmas = []
    for share in (0.0, 0.2, 0.4, 0.6):
        mixed = np.where(order < share, points + away, points).astype(np.float32)
        found = pose_from_coordinates(mixed, np.zeros((H, W), np.float32), refined_camera)
        assert found is not None
        sigmas.append(np.sqrt(np.linalg.det(found.covariance) ** (1 / 6)))
    # With 60 % off the residuals of the others are what they were, but sixteen times the spread is believed.
    assert np.all(np.diff(sigmas) > 0) and sigmas[-1] > 16.0 * sigmas[0]


def test_wrong_and_unsure_cells_do_not_matter(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    T_map_cam = SE3.exp(rng.normal(0.0, 1.0, 6))
    points = some_coordinates(rng, refined_camera, T_map_cam)
    log_sigma = np.full((H, W), -3.0, np.float32)
    # Wrong and sure: RANSAC's business. Wrong and unsure: never looked at.
    wrong, unsure = rng.random((H, W)) < 0.3, np.zeros((H, W), bool)
    unsure[:, : W // 4] = True
    points[:, wrong] += rng.normal(0.0, 2.0, (3, wrong.sum()))
    points[:, unsure] += 5.0
    log_sigma[unsure] = 0.0
    found = pose_from_coordinates(points.astype(np.float32), log_sigma, refined_camera)
    assert found is not None
    assert found.T_map_cam.distance_to(T_map_cam) < 1e-3


def test_noise_and_a_corner_alone_are_no_answer(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    flat = np.zeros((H, W), np.float32)
    noise = rng.normal(0.0, 2.0, (3, H, W)).astype(np.float32)
    assert pose_from_coordinates(noise, flat, refined_camera) is None
    points = some_coordinates(rng, refined_camera, SE3.identity()).astype(np.float32)
    keep = np.zeros((H, W), bool)
    keep[:6, :8] = True
    corner = np.where(keep, points, noise)
    assert pose_from_coordinates(corner, flat, refined_camera) is None


def test_refined_camera_survive_a_model_card(refined_camera: RefinedCamera) -> None:
    again = RefinedCamera.from_dict(refined_camera.to_dict())
    np.testing.assert_allclose(again.K, refined_camera.K)
    assert again.T_cam_refined.distance_to(refined_camera.T_cam_refined) < 1e-12
