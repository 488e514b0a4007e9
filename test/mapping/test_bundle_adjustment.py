"""Bundle adjustment on synthetic points: it finds what may move, and leaves what is fixed."""

from __future__ import annotations

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.mapping.bundle_adjustment import BundlePriors, BundleState, adjust

FOCAL_PX = 500.0


def seen_from(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def scene(rng: np.random.Generator, images: int = 12, points: int = 300) -> tuple[list[SE3], np.ndarray]:
    X = rng.uniform(-1.5, 1.5, (points, 3)) + np.array([0.0, 0.0, 4.0])
    T = [
        SE3.exp(np.concatenate([rng.normal(0, 0.08, 3), rng.uniform(-0.6, 0.6, 2), rng.normal(0, 0.2, 1)]))
        for _ in range(images)
    ]
    return T, X


def test_bundle_adjustment_finds_poses_calibration_and_extrinsics(rng: np.random.Generator) -> None:
    T_map_cam, X = scene(rng, images=20)
    T_cam_refined = SE3.exp([0.02, -0.03, 0.01, 0.02, 0.04, -0.03])
    truth = [T @ T_cam_refined for T in T_map_cam]
    intrinsics = np.array([520.0, 516.0, 322.0, 236.0, 0.03, -0.01, 0.001, -0.001])
    image = np.repeat(np.arange(20), len(X))
    point = np.tile(np.arange(len(X)), 20)
    camera = Camera(640, 480, np.array([[520.0, 0, 322.0], [0, 516.0, 236.0], [0, 0, 1]]), intrinsics[4:])
    xy = np.concatenate(
        [
            cv2.projectPoints(T.inverse() @ X, np.zeros(3), np.zeros(3), camera.K, camera.distortion)[0][:, 0]
            for T in truth
        ]
    ) + rng.normal(0, 0.3, (len(image), 2))
    given = np.stack([(T @ SE3.exp(rng.normal(0, [0.004] * 3 + [0.01] * 3))).matrix() for T in T_map_cam])
    start = BundleState(
        given.copy(),
        X + rng.normal(0, 0.03, X.shape),
        np.array([505.0, 505.0, 320.0, 240.0, 0, 0, 0, 0]),
        np.eye(4),
    )
    priors = BundlePriors(
        given, 0.004, 0.01, np.array([20, 20, 10, 10, 0.05, 0.02, 0.003, 0.003]), 0.1, 0.1, 0.3
    )
    state, error = adjust(start, image, point, xy, priors, 30)
    assert np.median(error) < 0.45

    def shape_error(poses: np.ndarray) -> float:
        # Relative to the first image: where the whole lies is up to the given poses and their errors.
        relative = [SE3.from_matrix(np.linalg.inv(poses[0]) @ T) for T in poses[1:]]
        expected = [truth[0].inverse() @ T for T in truth[1:]]
        return float(np.median([a.distance_to(b) for a, b in zip(relative, expected, strict=True)]))

    assert shape_error(start.T_map_refined) > 0.02
    assert shape_error(state.T_map_refined) < 0.15 * shape_error(start.T_map_refined)
    assert SE3.from_matrix(state.T_cam_refined).angle_to(T_cam_refined) < 0.3 * T_cam_refined.angle_to(
        SE3.identity()
    )
    assert np.allclose(state.intrinsics[:2], intrinsics[:2], rtol=0.01)


def test_bundle_adjustment_keeps_what_is_fixed(rng: np.random.Generator) -> None:
    T, X = scene(rng, images=6, points=60)
    poses = np.stack([t.matrix() for t in T])
    image, point = np.repeat(np.arange(6), 60), np.tile(np.arange(60), 6)
    xy = np.concatenate([seen_from(t, X) for t in T]) * FOCAL_PX
    intrinsics = np.array([FOCAL_PX, FOCAL_PX, 0, 0, 0, 0, 0, 0])
    start = BundleState(poses.copy(), X + rng.normal(0, 0.05, X.shape), intrinsics, np.eye(4))
    priors = BundlePriors(poses, 0.0, 0.0, np.zeros(8), 0.0, 0.0, 1.0)
    state, _ = adjust(start, image, point, xy, priors, 20)
    assert np.allclose(state.T_map_refined, poses, atol=1e-4)
    assert np.allclose(state.intrinsics, intrinsics, atol=1e-4)
    assert np.allclose(state.points, X, atol=1e-3)
