"""How far a frame lies from what a network was trained on, told by the network's own descriptor.

The standard deviations that a regressor answers are learned where it is right, and say next to nothing of places it has
not seen. The distance of a frame's descriptor to the nearest one of a training frame tells (deep nearest neighbours,
Sun et al., ICML 2022): it inflates the covariances of poses and motions, and far enough away the frame is out of
distribution and shows another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from localizer_ros.core.statistics import median
from localizer_ros.core.types import SceneError
from localizer_ros.scene.arrays import load_arrays, save_arrays

FILE = "out_of_distribution.npz"
# Training frames kept at most: more say little more, and each costs time in every frame.
MAX_FRAMES = 2000
# Distance at which inflation begins, in distances between neighbouring training frames. With 100 frames of Red Kitchen
# left out, sqrt(1 + d^2) in this unit has a rank correlation of 0.65 with errors of orientation and 0.35 with those of
# position; the network's own sigmas 0.27 and -0.30.
INFLATION_SPACINGS = 2.0
# Scores up to which there is a pose: where one is known to go on from, and to start from. Of frames of the place itself
# 97 to 100 % score below the first and 72 to 100 % below the second, of other places 0 to 64 % and 0 to 2 %.
MAX_SCORE, MAX_START_SCORE = 0.65, 0.45
# Share of a frame's own log sigma that counts; the rest is the training frames' median. The negative log likelihood of
# left-out frames is -14.14, -14.11, -14.09 and -14.03 for none, a quarter, a half and all of it: a quarter costs
# little, and leaves the scatter of anchors and of dropout something to say.
LOG_SIGMA_SHARE = 0.25
# Where the camera stood still, training frames do not differ; distances are of descriptors of unit length, 0 to 2.
_MIN_SPACING = 1e-3
# Where it hardly moved, no training frame is nearer than the typical one, and a score would mean nothing.
_MIN_TYPICAL_DISTANCE = 0.45


class OutOfDistribution(NamedTuple):
    """How unlike the training frames a frame is.

    Attributes:
        score: distance to the nearest training frame over that to the typical one; 0 at a training frame, about 1 for
            what resembles none of them.
        sigma_inflation: factor of the standard deviations of poses, whose square is the covariance inflation; 1 at a
            training frame.
    """

    score: float
    sigma_inflation: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingDistribution:
    """What a network was trained on, by the descriptors of its training frames.

    Attributes:
        descriptors: (N, C) float32 of unit length.
        spacing: typical distance of one of them to the nearest other one.
        median_log_sigma: (6,) median of the log standard deviations that the network answers to them.
    """

    descriptors: NDArray[np.float32]
    spacing: float
    median_log_sigma: NDArray[np.float64]

    @staticmethod
    def of(descriptors_NC: NDArray[np.float32], log_sigma_N6: NDArray[np.floating]) -> TrainingDistribution:
        """The distribution of training frames, of which at most ``MAX_FRAMES``, evenly chosen, are kept.

        Args:
            descriptors_NC: of unit length, in the order of the recording.
            log_sigma_N6: log standard deviations that the network answers to these frames.
        """
        step = -(-len(descriptors_NC) // MAX_FRAMES)
        kept = np.ascontiguousarray(descriptors_NC[::step], np.float32)
        distances = _distances(kept, kept)
        np.fill_diagonal(distances, np.inf)
        nearest = distances.min(1)
        known = nearest[np.isfinite(nearest)]
        spacing = max(_MIN_SPACING, float(np.median(known)) if len(known) else 0.0)
        return TrainingDistribution(kept, spacing, np.median(np.asarray(log_sigma_N6, np.float64), axis=0))

    def assess(self, descriptor_C: NDArray[np.float32]) -> OutOfDistribution:
        """Score and inflation of a frame with this descriptor of unit length."""
        distances = _distances(np.asarray(descriptor_C, np.float32)[None], self.descriptors)[0]
        nearest, typical = float(distances.min()), max(median(distances), _MIN_TYPICAL_DISTANCE)
        return OutOfDistribution(nearest / typical, float(self._inflation(nearest)))

    def sigma_inflation(self, descriptors_NC: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N,) factors of the standard deviations of poses: 1 at a training frame, far from them in proportion to the
        distance."""
        distances = _distances(np.asarray(descriptors_NC, np.float32), self.descriptors)
        return self._inflation(distances.min(1))

    def shrunk(self, log_sigma: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 6) log standard deviations of poses as they are used: those that the network answers, shrunk towards
        the median of the training frames."""
        return np.asarray(
            self.median_log_sigma + LOG_SIGMA_SHARE * (log_sigma - self.median_log_sigma), np.float64
        )

    def save(self, folder: Path) -> None:
        """Write it to ``folder``. Half precision moves a distance by 1e-3 at most and halves the file."""
        save_arrays(
            folder / FILE,
            descriptors=self.descriptors.astype(np.float16),
            spacing=self.spacing,
            median_log_sigma=self.median_log_sigma,
        )

    @staticmethod
    def load(folder: Path) -> TrainingDistribution | None:
        """What :meth:`save` wrote; None where nothing was.

        Raises:
            SceneError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        arrays = load_arrays(path, ("descriptors", "spacing", "median_log_sigma"))
        descriptors = arrays["descriptors"].astype(np.float32)
        if descriptors.ndim != 2 or arrays["spacing"].size != 1 or arrays["median_log_sigma"].size != 6:
            raise SceneError(f"{path}: array shapes do not fit together")
        length = np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
        return TrainingDistribution(
            descriptors / length, float(arrays["spacing"].item()), np.reshape(arrays["median_log_sigma"], 6)
        )

    def _inflation(self, distance: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(
            np.hypot(1.0, np.asarray(distance) / (INFLATION_SPACINGS * self.spacing)), np.float64
        )


def motion_sigma_inflation(sigma_inflation: ArrayLike) -> NDArray[np.float64]:
    """Factors of the standard deviations of motions where those of poses are ``sigma_inflation``: depth is less sure
    where nobody has been, but what two images show of a motion is no worse."""
    return np.asarray(np.sqrt(sigma_inflation), np.float64)


def _distances(a_NC: NDArray[np.float32], b_MC: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) Euclidean distances of vectors of unit length."""
    cosines = a_NC @ b_MC.T
    return np.asarray(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosines)), np.float32)
