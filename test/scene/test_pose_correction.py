"""The smooth difference between a map's poses and the given ones."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SceneError
from localizer_ros.geometry.view_distance import view_vectors
from localizer_ros.scene.pose_correction import PoseCorrection


def test_a_bend_is_learnt_near_the_keyframes_and_fades_far_away() -> None:
    T = np.stack([SE3.exp([0, 0.02 * i, 0, 0.05 * i, 0, 0]).matrix() for i in range(40)])
    bend = [SE3.exp([0, 0, 0.01 * np.sin(i / 10), 0.03 * np.cos(i / 10), 0, 0]) for i in range(40)]
    given = np.stack([SE3(t[:3, :3], t[:3, 3]).matrix() @ b.matrix() for t, b in zip(T, bend, strict=True)])
    keep = np.arange(40) % 4 != 2
    correction = PoseCorrection.fit(T[keep], given[keep], np.radians(20), 0.3, 0.01, np.full(6, 0.02))
    between = SE3(T[14, :3, :3], T[14, :3, 3])
    corrected, covariance = correction.correct(between)
    target = SE3(given[14, :3, :3], given[14, :3, 3])
    assert corrected.distance_to(target) < 0.1 * between.distance_to(target)
    assert correction.uncorrect(corrected).distance_to(between) < 1e-6
    far, far_covariance = correction.correct(SE3(np.eye(3), np.array([50.0, 0, 0])))
    assert far.distance_to(SE3(np.eye(3), np.array([50.0, 0, 0]))) < 1e-9
    assert np.trace(far_covariance) > 10 * np.trace(covariance)


def test_nothing_is_known_from_images_that_cannot_be_told_apart() -> None:
    T = np.stack([SE3.exp([0, 0, 0, 1e-9 * i, 0, 0]).matrix() for i in range(80)])
    correction = PoseCorrection.fit(T, T, np.radians(20), 0.3, 1e-17, np.full(6, 0.02))
    assert np.allclose(correction.correct(SE3.identity())[1], 0.02**2 * np.eye(6), rtol=0.05)


def test_the_cut_off_kernel_corrects_as_the_whole_one_does(rng: np.random.Generator) -> None:
    T = np.stack([SE3.exp([0, 0.02 * i, 0, 0.05 * i, 0, 0]).matrix() for i in range(200)])
    bend = [SE3.exp([0, 0, 0.01 * np.sin(i / 10), 0.03 * np.cos(i / 10), 0, 0]) for i in range(200)]
    given = np.stack([t @ b.matrix() for t, b in zip(T, bend, strict=True)])
    reach_rad, reach_m, noise = np.radians(20), 0.3, 0.3
    correction = PoseCorrection.fit(T, given, reach_rad, reach_m, noise, np.full(6, 0.02))
    features = view_vectors(T, reach_m, reach_rad)
    kernel = np.exp(-0.5 * np.sum((features[:, None] - features) ** 2, axis=2))
    inverse = np.linalg.inv(kernel + noise * np.eye(200))
    pose = T[77] @ SE3.exp(rng.normal(0, 0.02, 6)).matrix()
    k = np.exp(-0.5 * np.sum((view_vectors(pose[None], reach_m, reach_rad) - features) ** 2, axis=1))
    whole = SE3.from_matrix(pose) @ SE3.exp(k @ inverse @ np.stack([b.log() for b in bend]))
    corrected, covariance = correction.correct(SE3.from_matrix(pose))
    assert corrected.distance_to(whole) < 1e-4 and corrected.angle_to(whole) < 1e-4
    assert np.allclose(covariance, (1.0 - k @ inverse @ k) * 0.02**2 * np.eye(6), rtol=0.02)


def test_a_stored_correction_is_the_same_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    T = np.stack([SE3.exp([0, 0.02 * i, 0, 0.05 * i, 0, 0]).matrix() for i in range(6)])
    given = np.stack([t @ SE3.exp([0, 0, 0.01, 0.02, 0, 0]).matrix() for t in T])
    correction = PoseCorrection.fit(T, given, np.radians(20), 0.3, 0.01, np.full(6, 0.02))
    assert PoseCorrection.load(tmp_path, 0.01) is None
    assert correction.save(tmp_path) == (tmp_path / "pose_correction.npz").stat().st_size
    loaded = PoseCorrection.load(tmp_path, 0.01)
    assert loaded is not None
    pose = SE3.exp([0, 0.03, 0, 0.06, 0, 0])
    assert loaded.correct(pose)[0].distance_to(correction.correct(pose)[0]) < 1e-6
    np.savez(tmp_path / "pose_correction.npz", T=T[:, :3])
    with pytest.raises(SceneError, match=r"pose_correction\.npz: weights, .* missing"):
        PoseCorrection.load(tmp_path, 0.01)
