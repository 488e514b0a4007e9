"""Spreads scaled to errors: exact for Gaussian errors, by the worst stretch of frames, deaf to missing answers."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.training.calibration import UNSEEN_DRIVE, UNSEEN_MOVES, UNSEEN_TURNS, spread_scales
from localizer_ros.training.data import PosedImages

COUNT, SPREAD = 400, 0.02


def drive(rng: np.random.Generator) -> PosedImages:
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


def answers(data: PosedImages, error_N6: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    poses = [T @ SE3.exp(-error) for T, error in zip(data.poses, error_N6, strict=True)]
    rel = [np.zeros(6)]
    for a, b in zip(data.poses[:-1], data.poses[1:], strict=True):
        T = a.inverse() @ b @ SE3.exp(rng.normal(0.0, SPREAD, 6))
        rel.append(np.concatenate([T.log()[:3], T.t]))
    return {
        "t": np.array([T.t for T in poses]),
        "q": np.array([T.quaternion_xyzw() for T in poses]),
        "log_sigma": np.full((COUNT, 6), np.log(SPREAD)),
        "rel": np.array(rel),
        "rel_log_sigma": np.full((COUNT, 6), np.log(SPREAD)),
    }


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
def test_gaussian_errors_give_their_size(size: float, rng: np.random.Generator) -> None:
    data = drive(rng)
    sizes = np.repeat([size, 2.0 * size], 3)
    outputs = answers(data, rng.normal(0.0, SPREAD, (COUNT, 6)) * sizes, rng)
    scales = spread_scales(outputs, data, [np.arange(COUNT)])
    np.testing.assert_allclose(np.array(scales[:2]) / UNSEEN_DRIVE, [size, 2.0 * size], rtol=0.15)
    # Ten independent motions add up as their variances do.
    np.testing.assert_allclose(np.array(scales[2:]) / [UNSEEN_TURNS, UNSEEN_MOVES], 1.0, rtol=0.25)


def test_the_worst_stretch_of_frames_counts_and_too_short_ones_do_not(rng: np.random.Generator) -> None:
    data = drive(rng)
    error = rng.normal(0.0, SPREAD, (COUNT, 6))
    error[100:200] *= 3.0
    error[398:] *= 50.0
    outputs = answers(data, error, rng)
    outputs["t"][150:160] = np.nan
    blocks = [np.arange(100), np.arange(100, 200), np.arange(200, 398), np.arange(398, COUNT)]
    np.testing.assert_allclose(spread_scales(outputs, data, blocks)[:2], 3.0 * UNSEEN_DRIVE, rtol=0.2)
    # Spreads that know better are believed: the typical frame counts, and nothing is added.
    believed = spread_scales(outputs, data, blocks, tells_hard_frames=True)[:2]
    np.testing.assert_allclose(believed, 1.2, rtol=0.2)


def test_without_answers_nothing_is_scaled(rng: np.random.Generator) -> None:
    data = drive(rng)
    outputs = answers(data, np.zeros((COUNT, 6)), rng)
    outputs["t"][:] = np.nan
    assert spread_scales(outputs, data, [np.arange(COUNT)])[:2] == (UNSEEN_DRIVE, UNSEEN_DRIVE)
