"""Matches near where a predicted pose puts the points of a map."""

import numpy as np
from synthetic_map import synthetic_map, view_from

from localizer_ros.core.se3 import SE3
from localizer_ros.localization.map_based.guided_matching import guided_matches

TRUTH = SE3.exp([0.02, -0.01, 0.0, 0.1, 0.05, 0.0])
KEYFRAMES = np.arange(3)


def test_every_point_is_found_at_its_keypoint(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    view = view_from(point_map, TRUTH)
    found = guided_matches(point_map, TRUTH, KEYFRAMES, view, 4.0 / 250.0)
    inside = np.all(np.abs(view.rays) < view.half_view, axis=1)
    assert found.visible == inside.sum()
    assert np.array_equal(found.keypoint, found.point) and len(found.point) >= found.visible
    assert np.abs(found.offset).max() < 1e-5


def test_offsets_are_those_of_the_prediction(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    predicted = TRUTH @ SE3.exp([0, 0.02, 0, 0, 0, 0])
    found = guided_matches(point_map, predicted, KEYFRAMES, view_from(point_map, TRUTH), 10.0 / 250.0)
    assert np.array_equal(found.keypoint, found.point) and len(found.point) > 50
    assert np.allclose(np.median(found.offset, axis=0), [0.02, 0.0], atol=2e-3)
    # A window narrower than the error finds next to nothing.
    assert (
        len(guided_matches(point_map, predicted, KEYFRAMES, view_from(point_map, TRUTH), 1.0 / 250.0).point)
        < 5
    )


def test_what_looks_otherwise_or_lies_behind_is_no_match(rng: np.random.Generator) -> None:
    point_map = synthetic_map(rng)
    view = view_from(point_map, TRUTH)
    other = rng.normal(size=view.features.descriptors.shape).astype(np.float32)
    view.features.descriptors[:] = other / np.linalg.norm(other, axis=1, keepdims=True)
    found = guided_matches(point_map, TRUTH, KEYFRAMES, view, 4.0 / 250.0)
    assert len(found.point) == 0 and found.visible > 50
    behind = SE3.exp([0, np.pi, 0, 0, 0, 0])
    assert guided_matches(point_map, behind, KEYFRAMES, view, 4.0 / 250.0).visible == 0
    assert guided_matches(point_map, TRUTH, np.arange(0), view, 4.0 / 250.0).visible == 0
