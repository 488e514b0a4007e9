"""From the answers of an examination to the model of confidence that a scene keeps.

Few answers of one scene say little of rare errors. So everything is drawn towards what other places have shown: weights
by a Gaussian prior as wide as weights differ between places (empirical Bayes), inflations by as many pseudo-samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from localizer_ros.core.types import Array, Mask
from localizer_ros.evaluation.metrics import NEES_EXPECTED_MEDIAN, NEES_EXPECTED_P90
from localizer_ros.mapping.examination import EXPLAINS, Sample
from localizer_ros.mapping.keyframes import FEWEST_VALIDATED
from localizer_ros.scene.confidence import FEATURES, PRIOR, SURE_LOGIT, ConfidenceModel

WEIGHT_SIGMA = 0.7
"""Standard deviation of a weight between places; see ``scene.confidence`` for those that were looked at."""

# Pseudo-samples that the inflation of other places counts as, at all distances and at each; and that their slope by
# doubt counts as.
_PRIOR_SAMPLES, _PRIOR_PAIRS = 8.0, 40.0
# Answers so far from a distance say little of it, and fewer than this nothing; halves of answers that are equally sure
# say nothing of the slope.
_BEYOND_SIGMA_RAD, _LEAST_COUNT, _LEAST_APART = np.radians(6.0), 1e-3, 1.0
# One prior in so many is taken to be wrong.
_WRONG_PRIORS = 10
# Precision of a weight that is not to be fitted.
_FIXED = 1e9
_ITERATIONS, _STILL = 100, 1e-8


def fit_confidence(
    samples: Sequence[Sample], prior: ConfidenceModel = PRIOR, spread: float = WEIGHT_SIGMA
) -> ConfidenceModel:
    """The model of a scene.

    Args:
        samples: of its examination; none leaves the prior.
        prior: what other places have shown.
        spread: standard deviation of a weight about that of the prior.
    """
    features, right = _features(samples)
    if not len(right):
        return prior
    start = np.concatenate([[prior.bias], prior.weights])
    fitted = monotone_logistic(features, right, start, np.full(len(start), spread**-2))
    model = replace(
        prior,
        bias=float(fitted[0]),
        weights=fitted[1:],
        rival_weight=_rival_weight(samples, prior.rival_weight),
    )
    probability = np.array([model.probability(s.evidence) for s in samples])
    examined = np.sort(np.concatenate([prior.examined, probability]))
    return fit_inflation(samples, replace(model, examined=examined))


def _features(samples: Sequence[Sample]) -> tuple[Array, Mask]:
    """(N, F) features and (N,) whether right, of all answers as they were and as if there had been a prior. Inaccurate
    ones are neither."""
    # Between two places that look the same, evidence does not decide.
    alone = [s for s in samples if s.evidence.rival_explains <= EXPLAINS and s.right != s.elsewhere]
    asked = [(s.evidence, s.right) for s in alone]
    for n, s in enumerate(alone):
        agrees = s.agrees and n % _WRONG_PRIORS != 0
        asked.append((replace(s.evidence, agrees=agrees), s.right))
    features = np.array([e.features() for e, _ in asked]).reshape(len(asked), len(FEATURES))
    return features, np.array([right for _, right in asked], dtype=np.bool_)


def _rival_weight(samples: Sequence[Sample], prior: float) -> float:
    """Of the ratio of inliers to those of the second-best place, by the answers that had one."""
    held = [s for s in samples if s.evidence.rival_explains > EXPLAINS]
    ratio = np.array([[np.log(max(s.evidence.inliers, 1) / s.evidence.rival)] for s in held]).reshape(-1, 1)
    right = np.array([not s.elsewhere for s in held], dtype=np.bool_)
    # Equal places leave one half: there is no bias.
    mean, precision = np.array([0.0, prior]), np.array([_FIXED, WEIGHT_SIGMA**-2])
    return float(monotone_logistic(ratio, right, mean, precision)[1])


def monotone_logistic(features: Array, right: Mask, mean: Array, precision: Array) -> Array:
    """(1 + F,) bias and weights, no weight negative, of the logistic regression with a Gaussian prior.

    By Newton's method on the weights that are free (Bertsekas 1982): one at zero stays there while its gradient says
    less.

    Args:
        features: (N, F).
        right: (N,).
        mean: (1 + F,) of the prior.
        precision: (1 + F,) of the prior, the inverse variances.
    """
    A = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    y = right.astype(np.float64)

    def loss(b: Array) -> float:
        z = A @ b
        return float(np.sum(np.logaddexp(0.0, z) - y * z) + 0.5 * np.sum(precision * (b - mean) ** 2))

    b = mean.copy()
    for _ in range(_ITERATIONS):
        p = 1.0 / (1.0 + np.exp(-np.clip(A @ b, -30.0, 30.0)))
        gradient = A.T @ (p - y) + precision * (b - mean)
        hessian = (A * (p * (1.0 - p))[:, None]).T @ A + np.diag(precision)
        free = np.append(True, (b[1:] > 0.0) | (gradient[1:] < 0.0))
        step = np.zeros_like(b)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        length, before, new = 1.0, loss(b), b
        while length > _STILL:
            new = b + length * step
            new[1:] = np.maximum(new[1:], 0.0)
            if loss(new) <= before:
                break
            length *= 0.5
        if np.abs(new - b).max() < _STILL:
            break
        b = new
    return b


def fit_inflation(samples: Sequence[Sample], model: ConfidenceModel) -> ConfidenceModel:
    """The model with inflations that make the normalised squared errors of answers at the right place honest.

    A factor stands between that of the median and that of the 90th percentile: errors have heavier tails than a
    Gaussian, and both shall be near what is due.

    Args:
        samples: of the examination.
        model: probabilities of the scene, inflation of other places.
    """
    there = [s for s in samples if not s.elsewhere]
    if not there:
        return model
    log_nees, sure = _log_nees(there), _sureness(there, model)
    at = np.array([s.evidence.beyond_rad for s in there])
    count = float(len(there))
    # What is the same for all answers first, which are the map's own errors; then distance; doubt explains the rest.
    by_distance, slope = np.log(model.inflation), model.doubt_slope
    rest = log_nees - np.interp(at, model.beyond_rad, by_distance) + slope * sure
    shift = _log_scale(rest, np.ones(len(rest))) * count / (count + _PRIOR_SAMPLES)
    by_distance = _rising(by_distance + shift + _local_scales(rest - shift, at, model.beyond_rad))
    rest = log_nees - np.interp(at, model.beyond_rad, by_distance) + slope * sure
    slope = max(0.0, slope + _slope(rest, sure) * count / (count + _PRIOR_PAIRS))
    # Another slope turns about the surest answers; the others are to stay honest.
    rest = log_nees - np.interp(at, model.beyond_rad, by_distance) + slope * sure
    by_distance = by_distance + _log_scale(rest, np.ones(len(rest))) * count / (count + _PRIOR_SAMPLES)
    return replace(model, inflation=np.exp(by_distance), doubt_slope=slope)


def no_surer_than(validated: Sequence[Sample], model: ConfidenceModel) -> ConfidenceModel:
    """The model with covariances as large as frames need that the map was not made from.

    A hidden keyframe was adjusted together with those that are left, and its answer errs less than that to a new
    frame. Of every fifth stretch of KITTI 00 and a simulated room, left out of the map, normalised squared errors had
    medians of 17 and 8 without this.

    Args:
        validated: answers to such frames; too few leave what other places have shown nearest to their views.
        model: of the examination.
    """
    there = [s for s in validated if not s.elsewhere]
    if len(there) < FEWEST_VALIDATED:
        return replace(model, inflation=np.maximum(model.inflation, PRIOR.inflation[0]))
    log_nees, sure = _log_nees(there), _sureness(there, model)
    least = _log_scale(log_nees + model.doubt_slope * sure, np.ones(len(there)))
    return replace(model, inflation=np.maximum(model.inflation, np.exp(least)))


def _log_nees(samples: Sequence[Sample]) -> Array:
    errors = [float(s.error @ np.linalg.solve(s.covariance, s.error)) for s in samples if s.error is not None]
    return np.asarray(np.log(errors))


def _sureness(samples: Sequence[Sample], model: ConfidenceModel) -> Array:
    """Logits of the answers' probabilities, over that of a sure one."""
    probability = np.array([model.probability(s.evidence) for s in samples])
    return np.asarray(np.log(probability / (1.0 - probability)) - SURE_LOGIT)


def _local_scales(log_nees: Array, at: Array, knots: Array) -> Array:
    """(K,) logarithms of the factors that answers near each distance need, drawn to zero where they are few."""
    scales = np.zeros(len(knots))
    for k, knot in enumerate(knots):
        near = np.exp(-0.5 * ((at - knot) / _BEYOND_SIGMA_RAD) ** 2)
        count = float(near.sum())
        if count > _LEAST_COUNT:
            scales[k] = _log_scale(log_nees, near) * count / (count + _PRIOR_SAMPLES)
    return scales


def _slope(log_nees: Array, sure: Array) -> float:
    """By how much less surer answers err: fall of the logarithm for each logit, between the two halves of answers."""
    order = np.argsort(sure)
    low, high = order[: len(order) // 2], order[len(order) // 2 :]
    apart = float(sure[high].mean() - sure[low].mean()) if len(low) else 0.0
    if apart < _LEAST_APART:
        return 0.0
    fall = _log_scale(log_nees[low], np.ones(len(low))) - _log_scale(log_nees[high], np.ones(len(high)))
    return fall / apart


def _log_scale(log_nees: Array, weight: Array) -> float:
    """Logarithm of the factor that makes weighted normalised squared errors honest."""
    order = np.argsort(log_nees)
    share = (np.cumsum(weight[order]) - 0.5 * weight[order]) / weight.sum()
    median, high = np.interp([0.5, 0.9], share, log_nees[order])
    return float(0.5 * (median - np.log(NEES_EXPECTED_MEDIAN) + high - np.log(NEES_EXPECTED_P90)))


def _rising(values: Array) -> Array:
    """The nearest sequence that never falls (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks.pop()
            blocks[-1] = [(a * n + b * m) / (n + m), n + m]
    return np.concatenate([np.full(int(n), value) for value, n in blocks])
