"""How differently two cameras look at a scene."""

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.geometry.view_distance import view_distances, view_vectors


def poses(rng: np.random.Generator, count: int) -> list[SE3]:
    return [SE3.exp(rng.normal(0, [0.1] * 3 + [0.3] * 3)) for _ in range(count)]


def test_a_turn_counts_as_its_angle_and_a_move_as_the_angle_that_it_is_seen_under() -> None:
    cameras = np.stack([SE3.exp([0, 0.2, 0, 0, 0, 0]).matrix(), SE3.exp([0, 0, 0, 0, 0.5, 0]).matrix()])
    assert np.allclose(view_distances(cameras, SE3.identity(), 2.0), [0.2, 0.25])
    both = SE3.exp([0, 0.2, 0, 0, 0, 0]).matrix()
    both[1, 3] = 0.5
    assert np.allclose(view_distances(both[None], SE3.identity(), 2.0), np.hypot(0.2, 0.25))


def test_a_scene_of_another_size_gives_the_same_distances(rng: np.random.Generator) -> None:
    cameras = poses(rng, 10)
    small, large = (np.stack([SE3(T.R, s * T.t).matrix() for T in cameras]) for s in (1.0, 20.0))
    near, far = (SE3(cameras[0].R, s * cameras[0].t) for s in (1.0, 20.0))
    assert np.allclose(view_distances(small, near, 3.0), view_distances(large, far, 60.0))


def test_vectors_are_as_far_apart_as_the_views(rng: np.random.Generator) -> None:
    cameras = poses(rng, 30)
    stacked = np.stack([T.matrix() for T in cameras])
    vectors = view_vectors(stacked, 2.5)
    expected = view_distances(stacked, cameras[0], 2.5)
    # A chord is shorter than its arc: by 1 % at half a radian.
    assert np.allclose(np.linalg.norm(vectors - vectors[0], axis=1), expected, rtol=0.02, atol=1e-6)
    halved = view_vectors(stacked, 5.0, 2.0)
    assert np.allclose(halved, vectors / 2.0)
