"""Pruning keeps to its budget, and views that are far apart before views that repeat each other."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.mapping.pruning import observations_within


def test_within_the_budget_everything_stays() -> None:
    image, point = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    assert observations_within(12, image, point, 3).all()


@pytest.mark.parametrize("budget", [250, 120, 60, 9])
def test_repeated_views_go_first_and_then_points_seen_seldom(budget: int, rng: np.random.Generator) -> None:
    # Point p is seen by 2 + p images, evenly spaced.
    image = np.concatenate([np.linspace(0, 99, 2 + p).astype(int) for p in range(20)])
    point = np.repeat(np.arange(20), 2 + np.arange(20))
    shuffled = rng.permutation(len(point))
    keep = observations_within(budget, image[shuffled], point[shuffled], 20)
    left = np.bincount(point[shuffled][keep], minlength=20)
    assert keep.sum() <= budget and left.max() >= 4
    # Views count up to as many as are left of the points seen most often; of points that count less nothing is left.
    counted = np.minimum(2 + np.arange(20), left.max())
    assert np.all(left[left > 0] == counted[left > 0])
    assert counted[left > 0].min() >= counted[left == 0].max(initial=0)
    for p in np.nonzero(left > 2)[0]:
        seen = np.sort(image[shuffled][keep & (point[shuffled] == p)])
        assert np.ptp(seen) > 50


def test_points_seen_twice_alone_are_dropped_as_a_whole() -> None:
    image, point = np.tile([0, 1], 10), np.repeat(np.arange(10), 2)
    keep = observations_within(7, image, point, 10)
    assert keep.sum() == 6 and set(np.bincount(point[keep], minlength=10)) == {0, 2}
