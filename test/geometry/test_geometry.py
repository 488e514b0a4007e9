"""The geometry of structure maps on synthetic points: solving, triangulating, adjusting, correcting."""

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.features.descriptor_matching import mutual_matches, point_matches
from localizer_ros.features.local_features import from_bytes, to_bytes
from localizer_ros.geometry import pose_solver
from localizer_ros.geometry.pose_solver import refine_pose, solve_pose
from localizer_ros.geometry.rays import RayCamera, undistorted
from localizer_ros.geometry.triangulation import consistent, tracks_of, triangulated
from localizer_ros.scene.pose_correction import PoseCorrection

FOCAL_PX = 500.0


def seen_from(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def unit(rng: np.random.Generator, count: int, dimensions: int = 128) -> np.ndarray:
    values = np.abs(rng.normal(size=(count, dimensions))).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def scene(rng: np.random.Generator, images: int = 12, points: int = 300) -> tuple[list[SE3], np.ndarray]:
    X = rng.uniform(-1.5, 1.5, (points, 3)) + np.array([0.0, 0.0, 4.0])
    T = [
        SE3.exp(np.concatenate([rng.normal(0, 0.08, 3), rng.uniform(-0.6, 0.6, 2), rng.normal(0, 0.2, 1)]))
        for _ in range(images)
    ]
    return T, X


def test_jacobian_is_the_derivative_of_the_residual(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.1, 0.2, -0.1, 0.3, 0.1, 0.2]), rng.uniform(-1, 1, (20, 3)) + np.array([0.0, 0.0, 3.0])
    rays = seen_from(T, X) + rng.normal(0, 0.01, (20, 2))
    residual, J, _ = pose_solver._linearised(T, rays, X, FOCAL_PX)
    for k in range(6):
        step = np.zeros(6)
        step[k] = 1e-6
        moved = pose_solver._linearised(T @ SE3.exp(step), rays, X, FOCAL_PX)[0]
        # Central differences are not needed: the second derivative is below 1e3 px.
        assert np.allclose((moved - residual) / 1e-6, J[:, :, k], atol=2e-2)


def test_pose_is_found_among_wrong_matches(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.3, -0.2, 0.1, 0.5, -0.4, 0.2]), rng.uniform(-1, 1, (200, 3)) + np.array([0.0, 0.0, 3.0])
    rays = seen_from(T, X) + rng.normal(0, 0.5 / FOCAL_PX, (200, 2))
    rays[:120] += rng.uniform(-0.4, 0.4, (120, 2))
    solved = solve_pose(rays, X, FOCAL_PX, 6.0, 2000, 0, 12)
    assert solved is not None
    assert solved.T_map_refined.distance_to(T) < 0.005
    assert solved.T_map_refined.angle_to(T) < np.radians(0.15)
    assert 80 <= solved.count <= 95


def test_no_pose_from_wrong_matches_alone(rng: np.random.Generator) -> None:
    X = rng.uniform(-1, 1, (100, 3)) + np.array([0.0, 0.0, 3.0])
    assert solve_pose(rng.uniform(-0.5, 0.5, (100, 2)), X, FOCAL_PX, 4.0, 500, 0, 15) is None
    assert solve_pose(np.zeros((3, 2)), X[:3], FOCAL_PX, 4.0, 500, 0, 4) is None


def test_covariance_covers_the_scatter(rng: np.random.Generator) -> None:
    T, X = SE3.exp([0.1, 0.0, 0.0, 0.2, 0.1, 0.0]), rng.uniform(-1, 1, (60, 3)) + np.array([0.0, 0.0, 3.0])
    nees = []
    for _ in range(100):
        rays = seen_from(T, X) + rng.normal(0, 1.0 / FOCAL_PX, (60, 2))
        solved = refine_pose(T, rays, X, FOCAL_PX, 6.0, 12)
        assert solved is not None
        error = (solved.T_map_refined.inverse() @ T).log()
        nees.append(error @ np.linalg.solve(solved.covariance, error))
    # 6 for a perfect covariance; below, because neighbours are assumed to share errors and here do not.
    assert 1.5 < np.mean(nees) < 7.0


def test_tracks_join_matches_and_drop_images_seen_twice() -> None:
    pairs = [
        (0, 1, np.array([[0, 0], [1, 1]])),
        (1, 2, np.array([[0, 0], [1, 1]])),
        (0, 2, np.array([[2, 1]])),  # keypoints 1 and 2 of image 0 become one track
    ]
    image, keypoint, track = tracks_of(pairs, [3, 3, 3])
    assert sorted(zip(image.tolist(), keypoint.tolist(), track.tolist(), strict=True)) == [
        (0, 0, 0),
        (1, 0, 0),
        (1, 1, 1),
        (2, 0, 0),
        (2, 1, 1),
    ]
    assert all(len(part) == 0 for part in tracks_of([], [3, 3]))


def test_triangulation_is_exact_without_noise_and_drops_what_disagrees(rng: np.random.Generator) -> None:
    T, X = scene(rng)
    image = np.repeat(np.arange(len(T)), len(X))
    point = np.tile(np.arange(len(X)), len(T))
    poses = np.stack([t.matrix() for t in T])
    rays = np.concatenate([seen_from(t, X) for t in T])
    assert np.allclose(triangulated(poses, image, rays, point, len(X)), X, atol=1e-9)
    wrong = rng.choice(len(rays), 200, replace=False)
    rays[wrong] += 0.1
    kept, label, found = consistent(poses, image, rays, point, 0.004, np.radians(1.0))
    assert not np.isin(kept, wrong).any()
    assert np.median(np.linalg.norm(found[label] - X[point[kept]], axis=1)) < 1e-3


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
    calibration = RayCamera(camera, refined)
    xy = np.array([[100.0, 50.0]])
    assert np.allclose(calibration.rays(camera, xy), undistorted(refined, xy))
    other = Camera.pinhole(640, 480, 600, 600, 320, 240)
    assert np.allclose(calibration.rays(other, xy), undistorted(other, xy))
    half = camera.scaled(320, 240)
    assert np.allclose(calibration.rays(half, (xy + 0.5) / 2 - 0.5), calibration.rays(camera, xy))
    assert np.allclose(
        RayCamera.from_dict(calibration.to_dict()).rays(camera, xy), calibration.rays(camera, xy)
    )


def test_pose_field_learns_a_bend_and_fades_away(rng: np.random.Generator) -> None:
    T = np.stack([SE3.exp([0, 0.02 * i, 0, 0.05 * i, 0, 0]).matrix() for i in range(40)])
    bend = [SE3.exp([0, 0, 0.01 * np.sin(i / 10), 0.03 * np.cos(i / 10), 0, 0]) for i in range(40)]
    given = np.stack([SE3(t[:3, :3], t[:3, 3]).matrix() @ b.matrix() for t, b in zip(T, bend, strict=True)])
    keep = np.arange(40) % 4 != 2
    field = PoseCorrection.fit(T[keep], given[keep], np.radians(20), 0.3, 0.01, np.full(6, 0.02))
    between = SE3(T[14, :3, :3], T[14, :3, 3])
    corrected, covariance = field.correct(between)
    target = SE3(given[14, :3, :3], given[14, :3, 3])
    assert corrected.distance_to(target) < 0.1 * between.distance_to(target)
    assert field.uncorrect(corrected).distance_to(between) < 1e-6
    far, far_covariance = field.correct(SE3(np.eye(3), np.array([50.0, 0, 0])))
    assert far.distance_to(SE3(np.eye(3), np.array([50.0, 0, 0]))) < 1e-9
    assert np.trace(far_covariance) > 10 * np.trace(covariance)


def test_descriptors_survive_storage(rng: np.random.Generator) -> None:
    descriptors = unit(rng, 50)
    assert np.min(np.einsum("nd,nd->n", from_bytes(to_bytes(descriptors, False), False), descriptors)) > 0.999
    signed = rng.normal(size=(50, 64)).astype(np.float32)
    signed /= np.linalg.norm(signed, axis=1, keepdims=True)
    assert np.min(np.einsum("nd,nd->n", from_bytes(to_bytes(signed, True), True), signed)) > 0.999


def test_mutual_matches_find_the_permutation(rng: np.random.Generator) -> None:
    a = unit(rng, 100)
    order = rng.permutation(100)
    pairs = mutual_matches(a, a[order], 0.8)
    assert len(pairs) == 100
    assert np.array_equal(order[pairs[:, 1]], pairs[:, 0])
    assert len(mutual_matches(a, a[:1], 0.8)) == 0


def test_point_matches_do_not_compare_a_point_with_itself(rng: np.random.Generator) -> None:
    point = unit(rng, 30)
    # Three nearly equal observations of every point would fail a ratio test against each other.
    database = np.repeat(point, 3, axis=0) + rng.normal(0, 1e-3, (90, 128)).astype(np.float32)
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    keypoint, found = point_matches(point, database, np.repeat(np.arange(30), 3).astype(np.int32), 0.8)
    assert np.array_equal(np.sort(keypoint), np.arange(30))
    assert np.array_equal(keypoint, found)
