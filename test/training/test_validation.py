"""Errors of what a network answers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from training_images import some_data

from localizer_ros.core.se3 import SE3
from localizer_ros.training.data import PosedImages, motion_vector
from localizer_ros.training.validation import FAR_DEG, FAR_M, Predictions, accuracy, added_motions, residuals


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


def predicted(data: PosedImages, error: SE3) -> Predictions:
    """Answers that are all off by the same, in the body frame, with exact motions."""
    poses = [T @ error.inverse() for T in data.poses]
    rel = [np.zeros(6), *(motion_vector(a, b) for a, b in itertools.pairwise(data.poses))]
    return Predictions(
        t=np.array([T.t for T in poses]),
        q=np.array([T.quaternion_xyzw() for T in poses]),
        log_sigma=np.zeros((len(data), 6)),
        rel=np.array(rel),
        rel_log_sigma=np.zeros((len(data), 6)),
        descriptor=np.ones((len(data), 1), np.float32),
    )


def test_errors_are_in_the_body_frame_of_the_answer_and_motions_stay_within_sequences(
    rng: np.random.Generator,
) -> None:
    data, error = some_data(20, rng, per_sequence=10), SE3.exp([0.02, 0.0, -0.01, 0.1, 0.2, 0.0])
    errors = residuals(predicted(data, error), data)
    np.testing.assert_allclose(errors.absolute_N6, np.tile(error.log(), (20, 1)), atol=1e-9)
    np.testing.assert_allclose(errors.motion_M6, 0.0, atol=1e-9)
    assert errors.motion_rows.tolist() == [*range(1, 10), *range(11, 20)]


def test_a_frame_without_an_answer_counts_as_far_off(rng: np.random.Generator) -> None:
    data, error = some_data(20, rng), SE3.exp([0.0, 0.0, 0.0, 0.3, 0.0, 0.4])
    full = predicted(data, error)
    figures = accuracy(full, data)
    assert figures["answered"] == 1.0
    assert figures["median_t_m"] == pytest.approx(0.5) and figures["median_r_deg"] == pytest.approx(
        0.0, abs=1e-4
    )
    t = full.t.copy()
    t[:15] = np.nan
    worse = accuracy(replace(full, t=t), data)
    assert worse["answered"] == 0.25 and worse["score"] > figures["score"]
    assert worse["median_t_m"] == FAR_M and worse["median_r_deg"] == FAR_DEG
