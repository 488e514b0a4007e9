"""Sigmas scaled to errors: exact for Gaussian errors, inflated off the training frames, deaf to missing answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.localization.learned.out_of_distribution import TrainingDistribution
from localizer_ros.training.data import PosedImages
from localizer_ros.training.uncertainty import sigma_scales
from localizer_ros.training.validation import Predictions

COUNT, SIGMA = 400, 0.02


def sequence(rng: np.random.Generator) -> PosedImages:
    # Short steps: with long ones an error of rotation would be one of translation ten steps on.
    poses = [SE3.exp(rng.normal(0.0, 0.5, 6))]
    for _ in range(COUNT - 1):
        poses.append(poses[-1] @ SE3.exp(rng.normal(0.0, 1e-3, 6)))
    return PosedImages(
        np.zeros((COUNT, 1, 1, 3), np.uint8),
        tuple(poses),
        np.zeros(COUNT, np.int64),
        tuple(str(i) for i in range(COUNT)),
        Camera.pinhole(1, 1, 1.0, 1.0, 0.0, 0.0),
    )


def answers(data: PosedImages, error_N6: np.ndarray, rng: np.random.Generator) -> Predictions:
    poses = [T @ SE3.exp(-error) for T, error in zip(data.poses, error_N6, strict=True)]
    rel = [np.zeros(6)]
    for a, b in zip(data.poses[:-1], data.poses[1:], strict=True):
        T = a.inverse() @ b @ SE3.exp(rng.normal(0.0, SIGMA, 6))
        rel.append(np.concatenate([T.log()[:3], T.t]))
    log_sigma = np.full((COUNT, 6), np.log(SIGMA))
    return Predictions(
        t=np.array([T.t for T in poses]),
        q=np.array([T.quaternion_xyzw() for T in poses]),
        log_sigma=log_sigma,
        rel=np.array(rel),
        rel_log_sigma=log_sigma,
        descriptor=np.repeat(np.eye(8, dtype=np.float32)[:1], COUNT, axis=0),
    )


def one_training_frame() -> TrainingDistribution:
    return TrainingDistribution.of(np.eye(8, dtype=np.float32)[:1], np.full((1, 6), np.log(SIGMA)))


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
def test_gaussian_errors_give_their_size(size: float, rng: np.random.Generator) -> None:
    data = sequence(rng)
    sizes = np.repeat([size, 2.0 * size], 3)
    predicted = answers(data, rng.normal(0.0, SIGMA, (COUNT, 6)) * sizes, rng)
    scales = sigma_scales(predicted, data, one_training_frame())
    np.testing.assert_allclose(scales[:2], [size, 2.0 * size], rtol=0.15)
    # Ten independent motions add up as their variances do.
    np.testing.assert_allclose(scales[2:], 1.0, rtol=0.25)


def test_errors_that_grow_with_the_inflation_leave_the_scale_as_it_is(rng: np.random.Generator) -> None:
    data = sequence(rng)
    # Frames turn away from what was trained on, further and further.
    angle = np.linspace(0.0, 1.0, COUNT)
    descriptors = np.zeros((COUNT, 8), np.float32)
    descriptors[:, 0], descriptors[:, 1] = np.cos(angle), np.sin(angle)
    trained_on = TrainingDistribution(descriptors[:1], 0.05, np.full(6, np.log(SIGMA)))
    inflation = trained_on.sigma_inflation(descriptors)
    error = rng.normal(0.0, SIGMA, (COUNT, 6)) * inflation[:, None]
    predicted = replace(answers(data, error, rng), descriptor=descriptors)
    np.testing.assert_allclose(sigma_scales(predicted, data, trained_on)[:2], 1.0, rtol=0.15)
    # Calibrated sigmas are used as they are.
    calibrated = sigma_scales(predicted, data, trained_on, calibrated_sigma=True)[:2]
    np.testing.assert_allclose(calibrated, np.median(inflation), rtol=0.25)
    # Motions of the same error throughout must not have counted as better far off.
    assert max(sigma_scales(predicted, data, trained_on)[2:]) < 1.0


def test_sigmas_are_measured_after_they_are_shrunk(rng: np.random.Generator) -> None:
    data, trained_on = sequence(rng), one_training_frame()
    told = np.log(SIGMA) + rng.normal(0.0, 1.5, (COUNT, 6))
    error = rng.normal(0.0, 1.0, (COUNT, 6)) * np.exp(trained_on.shrunk(told))
    predicted = replace(answers(data, error, rng), log_sigma=told)
    np.testing.assert_allclose(sigma_scales(predicted, data, trained_on)[:2], 1.0, rtol=0.15)


def test_missing_answers_do_not_count_and_without_answers_nothing_is_scaled(rng: np.random.Generator) -> None:
    data = sequence(rng)
    predicted = answers(data, rng.normal(0.0, SIGMA, (COUNT, 6)), rng)
    predicted.t[150:160] = np.nan
    np.testing.assert_allclose(sigma_scales(predicted, data, one_training_frame())[:2], 1.0, rtol=0.15)
    predicted.t[:] = np.nan
    assert sigma_scales(predicted, data, one_training_frame())[:2] == (1.0, 1.0)
