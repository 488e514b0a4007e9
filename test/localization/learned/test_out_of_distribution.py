"""Out-of-distribution score and covariance inflation: exact at training frames, whatever the scale of descriptors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import SceneError
from localizer_ros.localization.learned.out_of_distribution import (
    FILE,
    INFLATION_SPACINGS,
    LOG_SIGMA_SHARE,
    MAX_FRAMES,
    MAX_SCORE,
    MAX_START_SCORE,
    TrainingDistribution,
)


def on_circle(angles: np.ndarray) -> np.ndarray:
    """(N, 4) descriptors on a circle."""
    return np.stack([np.cos(angles), np.sin(angles), 0.0 * angles, 0.0 * angles], 1).astype(np.float32)


def distribution_of(descriptors: np.ndarray) -> TrainingDistribution:
    return TrainingDistribution.of(descriptors, np.zeros((len(descriptors), 6)))


def test_log_sigmas_are_shrunk_towards_the_median_of_the_training_frames(rng: np.random.Generator) -> None:
    log_sigma = rng.normal(size=(101, 6))
    trained_on = TrainingDistribution.of(on_circle(np.arange(0.0, 1.01, 0.01)), log_sigma)
    usual = np.median(log_sigma, axis=0)
    np.testing.assert_allclose(trained_on.shrunk(usual), usual)
    apart = trained_on.shrunk(log_sigma[:2]) - trained_on.shrunk(usual)
    np.testing.assert_allclose(apart, LOG_SIGMA_SHARE * (log_sigma[:2] - usual), atol=1e-12)


def test_inflation_is_one_at_training_frames_and_in_proportion_to_the_distance_far_off() -> None:
    trained_on = distribution_of(on_circle(np.arange(0.0, 0.5, 0.01)))
    assert trained_on.spacing == pytest.approx(0.01, rel=1e-2)
    np.testing.assert_allclose(trained_on.sigma_inflation(trained_on.descriptors), 1.0, atol=1e-3)
    off = trained_on.sigma_inflation(on_circle(0.49 + np.array([0.05, 0.1, 0.2, 0.4])))
    assert np.all(np.diff(off) > 0.0)
    np.testing.assert_allclose(off[1:], np.array([0.1, 0.2, 0.4]) / (INFLATION_SPACINGS * 0.01), rtol=0.05)


def test_the_score_tells_frames_of_other_places(rng: np.random.Generator) -> None:
    trained_on = distribution_of(on_circle(np.arange(0.0, 3.0, 0.01)))
    known, ahead, other = (
        on_circle(np.array([1.0, 3.3])),
        on_circle(np.array([3.5])),
        np.eye(4, dtype=np.float32)[2:],
    )
    assert all(trained_on.assess(d).score < MAX_START_SCORE for d in known)
    assert trained_on.assess(known[0]).sigma_inflation == pytest.approx(1.0, abs=1e-3)
    assert trained_on.assess(ahead[0]).sigma_inflation == pytest.approx(trained_on.sigma_inflation(ahead)[0])
    for descriptor in other:
        assert MAX_SCORE < trained_on.assess(descriptor).score <= 1.0
    # Of frames that are all alike the nearest is no nearer than any other; it is known all the same.
    still = distribution_of(on_circle(np.full(20, 1.0)))
    assert still.assess(on_circle(np.array([1.1]))[0]).score < MAX_START_SCORE
    assert still.assess(other[0]).score > MAX_SCORE


def test_inflation_is_in_units_of_the_spacing_of_the_training_frames(rng: np.random.Generator) -> None:
    ahead = np.linspace(0.5, 1.0, 20)
    fine, coarse = (distribution_of(on_circle(np.arange(0.0, 0.5, step))) for step in (0.005, 0.02))
    a, b = (f.sigma_inflation(on_circle(ahead)) for f in (fine, coarse))
    # Far off only the scale differs, which calibration takes out.
    np.testing.assert_allclose((a / b)[10:], 4.0, rtol=0.1)


def test_inflation_is_finite_for_a_camera_that_stood_still_and_for_one_frame() -> None:
    for still in (on_circle(np.zeros(5)), on_circle(np.zeros(1))):
        grown = distribution_of(still).sigma_inflation(on_circle(np.array([0.0, 1.0, 3.0])))
        assert np.all(np.isfinite(grown)) and grown[0] == pytest.approx(1.0) and np.all(np.diff(grown) > 0)


def test_of_many_frames_evenly_chosen_ones_are_kept(rng: np.random.Generator) -> None:
    angles = np.sort(rng.uniform(0.0, 3.0, 3 * MAX_FRAMES + 1))
    trained_on = distribution_of(on_circle(angles))
    assert MAX_FRAMES // 2 < len(trained_on.descriptors) <= MAX_FRAMES
    assert trained_on.sigma_inflation(on_circle(angles)).max() < 20.0


def test_it_survives_its_file_and_names_a_damaged_one(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(30, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors + 0.02 * rng.normal(size=(30, 64)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    assert TrainingDistribution.load(tmp_path) is None
    log_sigma = rng.normal(size=(30, 6))
    trained_on = TrainingDistribution.of(vectors, log_sigma)
    trained_on.save(tmp_path)
    again = TrainingDistribution.load(tmp_path)
    assert again is not None
    np.testing.assert_allclose(again.sigma_inflation(asked), trained_on.sigma_inflation(asked), rtol=1e-2)
    np.testing.assert_array_equal(again.shrunk(log_sigma), trained_on.shrunk(log_sigma))
    np.savez(tmp_path / FILE, descriptors=vectors, spacing=0.1)
    with pytest.raises(SceneError, match=f"{FILE}: median_log_sigma missing"):
        TrainingDistribution.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a file of arrays")
    with pytest.raises(SceneError, match=FILE):
        TrainingDistribution.load(tmp_path)
