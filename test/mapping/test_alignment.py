"""Poses carried to the world: a similarity is undone, a length is kept, contradictions are errors."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.mapping.alignment import Reference, aligned, fit_similarity, scaled
from localizer_ros.mapping.reconstruction import Reconstruction


@pytest.mark.parametrize("straight", [False, True])
def test_a_similarity_is_undone(rng: np.random.Generator, straight: bool) -> None:
    poses = []
    for i in range(20):
        t = np.array([0.1 * i, 0.0, 0.0]) if straight else rng.normal(size=3)
        poses.append(SE3(SE3.exp(np.concatenate([rng.normal(0, 0.5, 3), np.zeros(3)])).R, t))
    S = SE3.exp([0.4, -1.0, 0.7, 3.0, -2.0, 1.0])
    reference = [SE3(S.R @ T.R, 2.5 * S.R @ T.t + S.t) for T in poses]
    both = list(range(0, 20, 2))
    carried, rms = fit_similarity(poses, both, [reference[n] for n in both])
    assert rms < 1e-9
    for T, expected in zip(carried, reference, strict=True):
        assert T.distance_to(expected) < 1e-9
        assert T.angle_to(expected) < 1e-9


def reconstruction(rng: np.random.Generator, count: int = 6) -> Reconstruction:
    poses = tuple(SE3.exp(rng.normal(0.0, 0.5, 6)) for _ in range(count))
    return Reconstruction(tuple("abcdef")[:count], tuple(range(count)), poses, 100, 0.5)


def test_a_length_gives_the_scale(rng: np.random.Generator) -> None:
    found = scaled(reconstruction(rng), 12.0)
    assert found.trajectory.length_m == pytest.approx(12.0)
    assert found.aligned_by == "path length 12.0 m"


def test_too_few_reference_poses_are_an_error(rng: np.random.Generator) -> None:
    found = reconstruction(rng)
    with pytest.raises(SourceError, match="2 placed frames have a reference pose, expected at least 3"):
        aligned(found, Reference(dict(zip("ab", found.T_map_cam[:2], strict=True)), "ground truth"))
