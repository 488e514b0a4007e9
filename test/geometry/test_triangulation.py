"""Tracks of matches, and the points where their rays meet."""

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.triangulation import consistent, tracks_of, triangulated


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
