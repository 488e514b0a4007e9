"""Familiarity: 1 at training frames, in proportion far off, whatever the scale of descriptors; survives its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import SceneError
from localizer_ros.localization.learned.out_of_distribution import (
    FILE,
    MOST_FRAMES,
    NEAR,
    OTHER_PLACE,
    SAME_PLACE,
    SPREAD_SHARE,
    Familiarity,
)


def drive(angles: np.ndarray) -> np.ndarray:
    """(N, 4) descriptors on a circle."""
    return np.stack([np.cos(angles), np.sin(angles), 0.0 * angles, 0.0 * angles], 1).astype(np.float32)


def familiarity_of(descriptors: np.ndarray) -> Familiarity:
    return Familiarity.of(descriptors, np.zeros((len(descriptors), 6)))


def test_of_what_a_network_says_of_a_frame_a_part_is_believed(rng: np.random.Generator) -> None:
    log_sigma = rng.normal(size=(101, 6))
    familiarity = Familiarity.of(drive(np.arange(0.0, 1.01, 0.01)), log_sigma)
    usual = np.median(log_sigma, axis=0)
    np.testing.assert_allclose(familiarity.believed(usual), usual)
    apart = familiarity.believed(log_sigma[:2]) - familiarity.believed(usual)
    np.testing.assert_allclose(apart, SPREAD_SHARE * (log_sigma[:2] - usual), atol=1e-12)


def test_training_frames_are_familiar_and_others_the_less_the_further_off() -> None:
    familiarity = familiarity_of(drive(np.arange(0.0, 0.5, 0.01)))
    assert familiarity.spacing == pytest.approx(0.01, rel=1e-2)
    np.testing.assert_allclose(familiarity.widening(familiarity.descriptors), 1.0, atol=1e-3)
    off = familiarity.widening(drive(0.49 + np.array([0.05, 0.1, 0.2, 0.4])))
    assert np.all(np.diff(off) > 0.0)
    np.testing.assert_allclose(off[1:], np.array([0.1, 0.2, 0.4]) / (NEAR * 0.01), rtol=0.05)


def test_strange_is_what_no_training_frame_resembles(rng: np.random.Generator) -> None:
    familiarity = familiarity_of(drive(np.arange(0.0, 3.0, 0.01)))
    known, ahead, other = drive(np.array([1.0, 3.3])), drive(np.array([3.5])), np.eye(4, dtype=np.float32)[2:]
    assert all(familiarity.ask(d).strangeness < SAME_PLACE for d in known)
    assert familiarity.ask(known[0]).widening == pytest.approx(1.0, abs=1e-3)
    assert familiarity.ask(ahead[0]).widening == pytest.approx(familiarity.widening(ahead)[0])
    for descriptor in other:
        assert OTHER_PLACE < familiarity.ask(descriptor).strangeness <= 1.0
    # Of frames that are all alike the nearest is no nearer than any other; it is known all the same.
    still = familiarity_of(drive(np.full(20, 1.0)))
    assert still.ask(drive(np.array([1.1]))[0]).strangeness < SAME_PLACE
    assert still.ask(other[0]).strangeness > OTHER_PLACE


def test_it_does_not_matter_how_densely_or_how_strongly_descriptors_move(rng: np.random.Generator) -> None:
    ahead = np.linspace(0.5, 1.0, 20)
    fine, coarse = (familiarity_of(drive(np.arange(0.0, 0.5, step))) for step in (0.005, 0.02))
    a, b = (f.widening(drive(ahead)) for f in (fine, coarse))
    # Far off only the scale differs, which calibration takes out.
    np.testing.assert_allclose((a / b)[10:], 4.0, rtol=0.1)


def test_frames_that_stand_still_and_a_single_one_give_finite_answers() -> None:
    for still in (drive(np.zeros(5)), drive(np.zeros(1))):
        grown = familiarity_of(still).widening(drive(np.array([0.0, 1.0, 3.0])))
        assert np.all(np.isfinite(grown)) and grown[0] == pytest.approx(1.0) and np.all(np.diff(grown) > 0)


def test_of_many_frames_some_are_kept(rng: np.random.Generator) -> None:
    angles = np.sort(rng.uniform(0.0, 3.0, 3 * MOST_FRAMES + 1))
    familiarity = familiarity_of(drive(angles))
    assert MOST_FRAMES // 2 < len(familiarity.descriptors) <= MOST_FRAMES
    assert familiarity.widening(drive(angles)).max() < 20.0


def test_it_survives_its_file_and_says_when_that_is_damaged(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(30, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors + 0.02 * rng.normal(size=(30, 64)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    assert Familiarity.load(tmp_path) is None
    log_sigma = rng.normal(size=(30, 6))
    familiarity = Familiarity.of(vectors, log_sigma)
    familiarity.save(tmp_path)
    again = Familiarity.load(tmp_path)
    assert again is not None
    np.testing.assert_allclose(again.widening(asked), familiarity.widening(asked), rtol=1e-2)
    np.testing.assert_array_equal(again.believed(log_sigma), familiarity.believed(log_sigma))
    np.savez(tmp_path / FILE, descriptors=vectors, spacing=0.1)
    with pytest.raises(SceneError, match="earlier version"):
        Familiarity.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a file of arrays")
    with pytest.raises(SceneError, match=FILE):
        Familiarity.load(tmp_path)
