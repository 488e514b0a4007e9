"""Sigmas that a network answers, scaled to the errors it makes on frames it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from localizer_ros.localization.learned.out_of_distribution import (
    TrainingDistribution,
    motion_sigma_inflation,
)
from localizer_ros.training.data import PosedImages
from localizer_ros.training.validation import Predictions, added_motions, residuals

# Frames over which the sigma of motions is calibrated.
MOTION_WINDOW = 10
# Fewer say nothing.
FEWEST_FRAMES = 3
_SMALLEST_SCALE = 1e-3


def sigma_scales(
    predicted: Predictions,
    data: PosedImages,
    trained_on: TrainingDistribution,
    calibrated_sigma: bool = False,
) -> tuple[float, float, float, float]:
    """Factors that bring the median normalised squared error to that of a 3-dimensional Gaussian.

    Sigmas are taken as the robot will have them: inflated, the less a frame is like those of the training. Held-out
    frames lie between training frames of the same sequence and are more like them than what a robot sees; it is the
    inflation that says by how much. Motions are measured over several frames, added up as independent: their errors are
    mostly the same from one frame to the next, and what the smoother needs is an honest sum.

    Args:
        predicted: of :func:`predict` on ``data``.
        data: frames with known poses, not trained on.
        trained_on: descriptors and sigmas of the training frames.
        calibrated_sigma: sigmas of poses are as answered, see :class:`localizer_ros.training.objectives.Objective`.

    Returns:
        Factors of the standard deviations of absolute rotation and translation, relative rotation and translation.
    """
    inflation = trained_on.sigma_inflation(predicted.descriptor)[:, None]
    sigma = np.exp(predicted.log_sigma)
    if not calibrated_sigma:
        sigma = np.exp(trained_on.shrunk(predicted.log_sigma)) * inflation
    absolute = np.square(residuals(predicted, data).absolute_N6 / sigma)
    rel_log_sigma = predicted.rel_log_sigma + np.log(motion_sigma_inflation(inflation))
    motion_error, motion_variance = added_motions(predicted.rel, rel_log_sigma, data, MOTION_WINDOW)
    motion = np.square(motion_error) / motion_variance
    rotation, translation = slice(0, 3), slice(3, 6)
    return (
        _scale(absolute[:, rotation]),
        _scale(absolute[:, translation]),
        _scale(motion[:, rotation]),
        _scale(motion[:, translation]),
    )


def _scale(squared_N3: NDArray[np.float64]) -> float:
    """Of the typical frame that has an answer; 1 where too few have."""
    squared = squared_N3.sum(1)
    known = squared[np.isfinite(squared)]
    if len(known) < FEWEST_FRAMES:
        return 1.0
    return max(float(np.sqrt(np.median(known) / chi2.median(3))), _SMALLEST_SCALE)
