"""Matches between descriptors."""

import numpy as np

from localizer_ros.features.descriptor_matching import mutual_matches, point_matches


def unit(rng: np.random.Generator, count: int, dimensions: int = 128) -> np.ndarray:
    values = np.abs(rng.normal(size=(count, dimensions))).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_mutual_matches_find_the_permutation(rng: np.random.Generator) -> None:
    a = unit(rng, 100)
    order = rng.permutation(100)
    pairs = mutual_matches(a, a[order], 0.8)
    assert len(pairs) == 100
    assert np.array_equal(order[pairs[:, 1]], pairs[:, 0])
    assert len(mutual_matches(a, a[:1], 0.8)) == 0


def test_the_ratio_test_of_points_passes_over_observations_of_the_same_point(
    rng: np.random.Generator,
) -> None:
    point = unit(rng, 30)
    # Three nearly equal observations of every point would fail a ratio test against each other.
    database = np.repeat(point, 3, axis=0) + rng.normal(0, 1e-3, (90, 128)).astype(np.float32)
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    keypoint, found = point_matches(point, database, np.repeat(np.arange(30), 3).astype(np.int32), 0.8)
    assert np.array_equal(np.sort(keypoint), np.arange(30))
    assert np.array_equal(keypoint, found)
