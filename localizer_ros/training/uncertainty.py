"""Spreads that a network answers, scaled to the errors it makes on frames it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from localizer_ros.localization.learned.out_of_distribution import Familiarity, motion_widening
from localizer_ros.training.data import PosedImages
from localizer_ros.training.module import added_motions, residuals

# Frames over which the spread of motions is calibrated.
MOTION_WINDOW = 10
# Fewer say nothing.
FEWEST_FRAMES = 3
_SMALLEST_SCALE = 1e-3


def spread_scales(
    outputs: dict[str, np.ndarray],
    data: PosedImages,
    familiarity: Familiarity,
    tells_hard_frames: bool = False,
) -> tuple[float, float, float, float]:
    """Factors that bring the median normalised squared error to that of a 3-dimensional Gaussian.

    Spreads are taken as the robot will have them: wider, the less familiar a frame is. Held-out frames lie between
    training frames of the same drive and are more familiar than what a robot sees; it is the widening that says by how
    much. Motions are measured over several frames, added up as independent: their errors are mostly the same from one
    frame to the next, and what the smoother needs is an honest sum.

    Args:
        outputs: of :func:`predict` on ``data``.
        data: frames with known poses, not trained on.
        familiarity: with what was trained on.
        tells_hard_frames: spreads of poses are as answered, see :class:`localizer_ros.training.objectives.Objective`.

    Returns:
        Factors of the standard deviations of absolute rotation and translation, relative rotation and translation.
    """
    widening = familiarity.widening(outputs["descriptor"])[:, None]
    sigma = np.exp(outputs["log_sigma"])
    if not tells_hard_frames:
        sigma = np.exp(familiarity.believed(outputs["log_sigma"])) * widening
    absolute = np.square(residuals(outputs, data).absolute_N6 / sigma)
    rel_log_sigma = outputs["rel_log_sigma"] + np.log(motion_widening(widening))
    motion_error, motion_variance = added_motions(
        {**outputs, "rel_log_sigma": rel_log_sigma}, data, MOTION_WINDOW
    )
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
