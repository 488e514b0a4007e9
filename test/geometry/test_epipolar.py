"""Distances of matches from their epipolar lines."""

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.epipolar import epipolar_distances, essential_matrix, fundamental_matrix


def seen(T: SE3, points: np.ndarray) -> np.ndarray:
    p = T.inverse() @ points
    return np.asarray(p[:, :2] / p[:, 2:])


def test_right_matches_lie_on_their_lines_and_others_beside_them(rng: np.random.Generator) -> None:
    points = rng.uniform(-1, 1, (40, 3)) + np.array([0.0, 0.0, 4.0])
    a, b = SE3.identity(), SE3.exp([0.02, -0.05, 0.01, 0.4, 0.1, 0.05])
    E = essential_matrix((b.inverse() @ a).matrix())
    assert epipolar_distances(E, seen(a, points), seen(b, points)).max() < 1e-9
    off = epipolar_distances(E, seen(a, points), seen(b, points) + np.array([0.0, 0.01]))
    assert 0.005 < np.median(off) < 0.0101


def test_pixels_give_the_same_distances_times_the_focal_length(rng: np.random.Generator) -> None:
    K = np.array([[400.0, 0.0, 320.0], [0.0, 400.0, 240.0], [0.0, 0.0, 1.0]])
    T_b_a = SE3.exp([0.02, -0.05, 0.01, 0.4, 0.1, 0.05]).matrix()
    rays_a, rays_b = rng.uniform(-0.5, 0.5, (2, 30, 2))
    xy_a, xy_b = (rays * 400.0 + [320.0, 240.0] for rays in (rays_a, rays_b))
    expected = 400.0 * epipolar_distances(essential_matrix(T_b_a), rays_a, rays_b)
    assert np.allclose(epipolar_distances(fundamental_matrix(T_b_a, K), xy_a, xy_b), expected, rtol=1e-6)
