"""Spreads that a network answers, scaled to the errors it makes on frames it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from localizer_ros.training.data import PosedImages
from localizer_ros.training.network_training import added_motions, residuals

# Frames over which the spread of motions is calibrated.
MOTION_WINDOW = 10
# Fewer frames of a block say nothing about it.
FEWEST_FRAMES = 3
# How much more poses err on a drive of which no frame was trained on than in the worst held-out stretch: of Red Kitchen
# without sequence 5, on that sequence.
UNSEEN_DRIVE = 1.37
# How much more motions, added up over a second, err there than over MOTION_WINDOW on held-out frames. On sequences 1, 3
# and 5, each left out in turn: turns 1.4 to 2.3 times, moves 1.2 to 3.3 times; wider moves cost more in position than
# they are worth.
UNSEEN_TURNS, UNSEEN_MOVES = 2.0, 1.5
_SMALLEST_SCALE = 1e-3


def spread_scales(
    outputs: dict[str, np.ndarray],
    data: PosedImages,
    blocks: Sequence[NDArray[np.int64]],
    tells_hard_frames: bool = False,
) -> tuple[float, float, float, float]:
    """Factors that bring the median normalised squared error to that of a 3-dimensional Gaussian, on an unseen drive.

    Those of poses are of the worst block, and somewhat more: a robot sees the place from where nobody has been before,
    and frames that lie between training frames of the same drive are too easy to tell how wrong it is there. Spreads
    that grow there by themselves need neither: they are scaled to the typical frame. Those of motions are measured over
    several frames, added up as independent: their errors are mostly the same from one frame to the next, and what the
    smoother needs is an honest sum.

    Args:
        outputs: of :func:`predict` on ``data``.
        data: frames with known poses, not trained on.
        blocks: rows of stretches of successive frames.
        tells_hard_frames: see :class:`localizer_ros.training.objectives.Objective`.

    Returns:
        Factors of the standard deviations of absolute rotation and translation, relative rotation and translation.
    """
    errors = residuals(outputs, data)
    unseen = UNSEEN_DRIVE
    if tells_hard_frames:
        blocks, unseen = [np.concatenate(blocks)], 1.0
    absolute = np.square(errors.absolute_N6) / np.exp(2.0 * outputs["log_sigma"])
    motion_error, motion_variance = added_motions(outputs, data, MOTION_WINDOW)
    motion = np.square(motion_error) / motion_variance
    rotation, translation = slice(0, 3), slice(3, 6)
    return (
        unseen * _scale(absolute[:, rotation], blocks),
        unseen * _scale(absolute[:, translation], blocks),
        UNSEEN_TURNS * _scale(motion[:, rotation], [np.arange(len(motion))]),
        UNSEEN_MOVES * _scale(motion[:, translation], [np.arange(len(motion))]),
    )


def _scale(squared_N3: NDArray[np.float64], blocks: Sequence[NDArray[np.int64]]) -> float:
    """Of the worst block that says anything; 1 where none does."""
    squared = squared_N3.sum(1)
    known = [values[np.isfinite(values)] for values in (squared[rows] for rows in blocks)]
    medians = [np.median(values) for values in known if len(values) >= FEWEST_FRAMES]
    if not medians:
        return 1.0
    return max(float(np.sqrt(max(medians) / chi2.median(3))), _SMALLEST_SCALE)
