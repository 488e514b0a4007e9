"""The probability that a pose is right, and how it is stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import SceneError
from localizer_ros.scene.arrays import load_arrays, save_arrays
from localizer_ros.scene.confidence import FILE, PRIOR, ConfidenceModel, Evidence

USUAL = Evidence(60, 500, 0.3, 2.5, 15.0, 0.2, rival=20, rival_explains=0.5)
BETTER = {
    "inliers": 61,
    "visible": 499,
    "coverage": 0.31,
    "error": 2.4,
    "excess": 15.1,
    "beyond_rad": 0.19,
    "rival": 19,
    "rival_explains": 0.4,
    "agrees": True,
}


@pytest.mark.parametrize("name", BETTER)
def test_more_of_what_speaks_for_a_pose_never_makes_it_less_probable(name: str) -> None:
    better = replace(USUAL, **{name: BETTER[name]})
    assert PRIOR.probability(better) >= PRIOR.probability(USUAL)


def test_a_pose_that_is_turned_away_from_all_mapped_views_is_never_sure() -> None:
    fits = Evidence(300, 900, 0.8, 1.0, 90.0, np.radians(90.0), agrees=True)
    assert PRIOR.probability(fits) > 0.999
    assert PRIOR.probability(replace(fits, beyond_rad=np.radians(175.0))) <= 0.5


def test_doubt_and_distance_widen_the_covariance() -> None:
    sure, doubtful = 1.0 - 1e-5, 0.99
    assert PRIOR.inflation_at(0.3, doubtful) > PRIOR.inflation_at(0.3, sure)
    assert PRIOR.inflation_at(0.8, sure) > PRIOR.inflation_at(0.0, sure)
    assert np.isfinite(
        PRIOR.inflation_at(9.0, PRIOR.probability(replace(USUAL, inliers=10**6, coverage=1.0)))
    )


@pytest.mark.parametrize("max_wrong", [1e-5, 0.001, 0.01, 0.3])
def test_accepted_answers_are_wrong_as_seldom_as_was_asked(max_wrong: float) -> None:
    examined = np.linspace(0.5, 1.0, 1001) ** 0.05
    least = replace(PRIOR, examined=examined).least_accepted(max_wrong)
    accepted = examined[examined >= least]
    assert 1.0 - 20.0 * max_wrong <= least <= 1.0 - max_wrong
    assert np.mean(1.0 - accepted) <= max_wrong if len(accepted) else True
    assert least <= replace(PRIOR, examined=examined).least_accepted(max_wrong / 2.0)


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert ConfidenceModel.load(tmp_path) is PRIOR
    PRIOR.save(tmp_path)
    read = ConfidenceModel.load(tmp_path)
    assert read.probability(USUAL) == PRIOR.probability(USUAL)
    assert read.inflation_at(0.3, 0.99) == PRIOR.inflation_at(0.3, 0.99)
    assert read.least_accepted(0.001) == PRIOR.least_accepted(0.001)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", np.array(["luck"])),
        ("weights", np.full(len(PRIOR.weights), -1.0)),
        ("bias", np.array([np.nan])),
        ("inflation", np.ones(3)),
        ("beyond_rad", np.zeros(len(PRIOR.beyond_rad))),
        ("examined", np.ones((2, 2))),
    ],
)
def test_a_damaged_model_is_named(tmp_path: Path, name: str, value: np.ndarray) -> None:
    PRIOR.save(tmp_path)
    names = (
        "features",
        "weights",
        "bias",
        "rival_weight",
        "examined",
        "beyond_rad",
        "inflation",
        "doubt_slope",
    )
    save_arrays(tmp_path / FILE, **{**load_arrays(tmp_path / FILE, names), name: value})
    with pytest.raises(SceneError, match=FILE):
        ConfidenceModel.load(tmp_path)
