"""From answers to the model of confidence."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from localizer_ros.core.types import Array
from localizer_ros.mapping.confidence_fit import fit_confidence, monotone_logistic, no_surer_than
from localizer_ros.mapping.examination import Sample
from localizer_ros.scene.confidence import PRIOR, ConfidenceModel, Evidence


def test_the_logistic_regression_finds_the_weights_and_keeps_their_signs(rng: np.random.Generator) -> None:
    features = rng.normal(size=(20_000, 3))
    truth = np.array([0.5, 2.0, -1.0, 0.0])
    right = rng.uniform(size=20_000) < 1.0 / (1.0 + np.exp(-(truth[0] + features @ truth[1:])))
    fitted = monotone_logistic(features, right, np.full(4, 0.1), np.full(4, 1e-3))
    # The one that would be negative is held at zero.
    free = monotone_logistic(features[:, [0, 2]], right, np.full(3, 0.1), np.full(3, 1e-3))
    assert fitted[2] == 0.0
    assert fitted[[0, 1, 3]] == pytest.approx(free, abs=0.02)


def test_few_samples_stay_near_the_prior_and_none_are_the_prior(rng: np.random.Generator) -> None:
    assert fit_confidence([]) is PRIOR
    few = fit_confidence(samples(rng, 3, 1.0))
    assert np.abs(few.weights - PRIOR.weights).max() < 0.5
    assert np.abs(np.log(few.inflation / PRIOR.inflation)).max() < 1.0


@pytest.mark.parametrize("too_small", [0.1, 1.0, 30.0])
def test_inflated_covariances_are_honest(rng: np.random.Generator, too_small: float) -> None:
    drawn = samples(rng, 400, too_small)
    model = fit_confidence(drawn)
    errors = squared_errors(model, drawn)
    assert np.median(errors) == pytest.approx(chi2.ppf(0.5, 6), rel=0.3)
    assert np.percentile(errors, 90) == pytest.approx(chi2.ppf(0.9, 6), rel=0.3)


def test_wrong_answers_lower_the_probability_of_their_like(rng: np.random.Generator) -> None:
    right = samples(rng, 60, 1.0)
    weak = Evidence(20, 900, 0.1, 4.0, 6.0, 0.5)
    wrong = [
        replace(s, evidence=weak, right=False, elsewhere=True, error=None) for s in samples(rng, 30, 1.0)
    ]
    model = fit_confidence([*right, *wrong])
    assert model.probability(weak) < PRIOR.probability(weak)
    assert np.all(model.weights >= 0.0)


def squared_errors(model: ConfidenceModel, answers: list[Sample]) -> list[float]:
    """Normalised by the covariances that the model gives."""
    errors = []
    for s in answers:
        assert s.error is not None
        factor = model.inflation_at(s.evidence.beyond_rad, model.probability(s.evidence))
        errors.append(float(s.error @ np.linalg.solve(s.covariance * factor, s.error)))
    return errors


def samples(rng: np.random.Generator, count: int, too_small: float) -> list[Sample]:
    """Right answers with errors of a covariance that is ``too_small`` times the one they say, more far away."""
    drawn = []
    for _ in range(count):
        beyond = rng.uniform(0.0, 0.8)
        covariance: Array = np.diag(rng.uniform(0.5, 2.0, 6))
        error = np.sqrt(too_small * (1.0 + 3.0 * beyond) * np.diag(covariance)) * rng.normal(size=6)
        evidence = Evidence(int(rng.integers(40, 300)), 900, 0.5, 2.0, 30.0, beyond)
        drawn.append(Sample(evidence, error, covariance, True, False, True, "hidden"))
    return drawn


def test_inaccurate_answers_widen_covariances_and_lower_no_probability(rng: np.random.Generator) -> None:
    drawn = samples(rng, 60, 1.0)
    off = [
        replace(s, right=False, error=10.0 * s.error) for s in samples(rng, 20, 1.0) if s.error is not None
    ]
    without, with_them = fit_confidence(drawn), fit_confidence([*drawn, *off])
    assert np.array_equal(with_them.weights, without.weights) and with_them.bias == without.bias
    assert np.all(with_them.inflation > without.inflation)


def test_no_answer_is_surer_than_frames_that_the_map_was_not_made_of(rng: np.random.Generator) -> None:
    examined = fit_confidence(samples(rng, 200, 0.1))
    new = samples(rng, 200, 1.0)
    model = no_surer_than(new, examined)
    assert np.all(model.inflation >= examined.inflation)
    assert np.median(squared_errors(model, new)) == pytest.approx(chi2.ppf(0.5, 6), rel=0.3)
    # What the examination knows to be worse stays so, and too few frames leave what other places have shown.
    assert np.array_equal(no_surer_than(samples(rng, 200, 1e-3), examined).inflation, examined.inflation)
    assert no_surer_than([], examined).inflation.min() == pytest.approx(PRIOR.inflation[0])
