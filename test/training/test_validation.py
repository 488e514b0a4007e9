"""Errors of what a network answers."""

from __future__ import annotations

import numpy as np
from training_images import some_data

from localizer_ros.training.data import motion_vector
from localizer_ros.training.validation import added_motions


def test_added_motions_of_an_exact_head_have_no_error_and_their_variances_add_up(
    rng: np.random.Generator,
) -> None:
    data = some_data(24, rng, per_sequence=12)
    rel = np.zeros((24, 6))
    for row in range(1, 24):
        rel[row] = motion_vector(data.poses[row - 1], data.poses[row])
    errors, variances = added_motions(rel, np.full((24, 6), np.log(0.1)), data, 5)
    assert len(errors) >= 6
    np.testing.assert_allclose(errors, 0.0, atol=1e-9)
    np.testing.assert_allclose(variances, 5 * 0.01)
