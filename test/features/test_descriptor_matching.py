"""Matches between descriptors."""

import cv2
import numpy as np
import pytest

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


@pytest.mark.usefixtures("opencv_as_before")
def test_points_are_the_nearest_of_all_however_the_work_is_shared(rng: np.random.Generator) -> None:
    database, point_of = unit(rng, 400), rng.integers(0, 150, 400).astype(np.int32)
    noise = rng.normal(0, 0.05, (300, 128)).astype(np.float32)
    query = np.concatenate([database[rng.integers(0, 400, 300)] + noise, unit(rng, 100)])
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    expected: dict[int, tuple[float, int]] = {}
    for keypoint, distances in enumerate(np.linalg.norm(query[:, None] - database[None], axis=2)):
        point, first = point_of[distances.argmin()], distances.min()
        second = distances[point_of != point].min()
        if first < 0.9 and first < 0.8 * second and first < expected.get(point, (np.inf, 0))[0]:
            expected[point] = first, keypoint
    for threads in (1, 3):
        cv2.setNumThreads(threads)
        found = point_matches(query, database, point_of, 0.8)
        assert dict(zip(found[1].tolist(), found[0].tolist(), strict=True)) == {
            point: keypoint for point, (_, keypoint) in expected.items()
        }
    assert len(expected) > 100
