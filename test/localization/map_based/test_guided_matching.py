"""Matches near where a predicted pose puts the points of a map."""

import numpy as np
from synthetic_map import synthetic_map, view_from

from localizer_ros.core.se3 import SE3
from localizer_ros.localization.map_based.guided_matching import _mutual_best, guided_matches, points_of

TRUTH = SE3.exp([0.02, -0.01, 0.0, 0.1, 0.05, 0.0])
KEYFRAMES = np.arange(3)


def test_every_point_is_found_at_its_keypoint(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    view = view_from(point_map, TRUTH)
    found = guided_matches(point_map, points_of(point_map, KEYFRAMES), TRUTH, view, 4.0 / 250.0)
    inside = np.all(np.abs(view.rays) < view.half_view, axis=1)
    assert found.visible == inside.sum()
    assert np.array_equal(found.keypoint, found.point) and len(found.point) >= found.visible
    assert np.abs(found.offset).max() < 1e-5


def test_offsets_are_those_of_the_prediction(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    predicted = TRUTH @ SE3.exp([0, 0.02, 0, 0, 0, 0])
    known, view = points_of(point_map, KEYFRAMES), view_from(point_map, TRUTH)
    found = guided_matches(point_map, known, predicted, view, 10.0 / 250.0)
    assert np.array_equal(found.keypoint, found.point) and len(found.point) > 50
    assert np.allclose(np.median(found.offset, axis=0), [0.02, 0.0], atol=2e-3)
    # A window narrower than the error finds next to nothing.
    assert len(guided_matches(point_map, known, predicted, view, 1.0 / 250.0).point) < 5


def test_what_looks_otherwise_or_lies_behind_is_no_match(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    view = view_from(point_map, TRUTH)
    other = rng.normal(size=view.features.descriptors.shape).astype(np.float32)
    view.features.descriptors[:] = other / np.linalg.norm(other, axis=1, keepdims=True)
    known = points_of(point_map, KEYFRAMES)
    found = guided_matches(point_map, known, TRUTH, view, 4.0 / 250.0)
    assert len(found.point) == 0 and found.visible > 50
    behind = SE3.exp([0, np.pi, 0, 0, 0, 0])
    assert guided_matches(point_map, known, behind, view, 4.0 / 250.0).visible == 0
    none = points_of(point_map, np.arange(0))
    assert guided_matches(point_map, none, TRUTH, view, 4.0 / 250.0).visible == 0


def test_a_point_is_compared_as_the_first_keyframe_saw_it(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    for first in KEYFRAMES:
        known = points_of(point_map, np.roll(KEYFRAMES, -int(first)))
        seen = np.isin(
            known.points, point_map.observation_point[point_map.observations_of(np.array([first]))]
        )
        assert seen.any() and np.all(point_map.observation_image[known.observations[seen]] == first)
        assert np.array_equal(point_map.observation_point[known.observations], known.points)


def test_the_best_pairs_are_the_best_of_both(rng: np.random.Generator) -> None:
    keypoint, slot = rng.integers(0, 30, 400), rng.integers(0, 40, 400)
    pair = np.unique(keypoint * 40 + slot)
    keypoint, slot = pair // 40, pair % 40
    # Few values: many are alike.
    similarity = rng.integers(0, 20, len(pair)) / 20.0
    found = list(zip(*_mutual_best(keypoint, slot, similarity), strict=True))
    of_keypoint = {k: max(similarity[keypoint == k]) for k in keypoint}
    of_slot = {s: max(similarity[slot == s]) for s in slot}
    assert found and len({k for k, _ in found}) == len(found) == len({s for _, s in found})
    for k, s in found:
        value = similarity[(keypoint == k) & (slot == s)][0]
        assert value == of_keypoint[k] == of_slot[s]
    alone = [
        (k, s)
        for k, s, value in zip(keypoint, slot, similarity, strict=True)
        if value == of_keypoint[k] == of_slot[s]
        and (similarity[keypoint == k] == value).sum() == (similarity[slot == s] == value).sum() == 1
    ]
    assert alone and set(alone) <= set(found)
