"""How far a frame lies from what a network was trained on, told by the network's own descriptor.

The spreads a regressor answers are learned where it is right, and say next to nothing of places it has not seen: little
of them is believed. The distance of a frame's descriptor to the nearest one of a training frame tells (deep nearest
neighbours, Sun et al., ICML 2022): with 100 frames left out of a drive in Red Kitchen it follows the error of position
and orientation. Far enough away it shows another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from localizer_ros.core.types import SceneError

FILE = "familiar.npz"
# More training frames than this say little more, and every one of them costs time in every frame.
MOST_FRAMES = 2000
# Distances count from about here, in distances between neighbouring training frames.
NEAR = 2.0
# The nearest training frame is nearer than this share of the distance of the typical one: surely the place that was
# trained on, and not surely another one (docs/lab-notes.md).
SAME_PLACE, OTHER_PLACE = 0.45, 0.65
# How much of what a network answers as the spread of a frame is believed; the rest is what it answers usually.
SPREAD_SHARE = 0.25
_SMALLEST_SPACING = 1e-3
# Where a camera hardly moved all training frames are alike, and nothing is nearer than typical.
_SMALLEST_TYPICAL = 0.45


class Acquaintance(NamedTuple):
    """How well a frame is known.

    Attributes:
        widening: factor of the standard deviations of poses, 1 at a training frame.
        strangeness: distance to the nearest training frame over that to the typical one; at most 1.
    """

    widening: float
    strangeness: float


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Descriptors of the training frames.

    Attributes:
        descriptors: (N, C) float32 of unit length.
        spacing: typical distance of one of them to the nearest other one.
        usual_log_sigma: (6,) median of the log standard deviations that the network answers to them.
    """

    descriptors: NDArray[np.float32]
    spacing: float
    usual_log_sigma: NDArray[np.float64]

    @staticmethod
    def of(descriptors: NDArray[np.float32], log_sigma: NDArray[np.float64]) -> Familiarity:
        """That of (N, C) descriptors of unit length, of many, evenly chosen ones; and of (N, 6) log standard
        deviations."""
        step = -(-len(descriptors) // MOST_FRAMES)
        kept = np.ascontiguousarray(descriptors[::step], np.float32)
        distances = _distances(kept, kept)
        np.fill_diagonal(distances, np.inf)
        nearest = distances.min(1)
        known = nearest[np.isfinite(nearest)]
        spacing = max(_SMALLEST_SPACING, float(np.median(known)) if len(known) else 0.0)
        return Familiarity(kept, spacing, np.median(np.asarray(log_sigma, np.float64), axis=0))

    def believed(self, log_sigma: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 6) log standard deviations of poses at a training frame, of what the network answers."""
        return np.asarray(
            self.usual_log_sigma + SPREAD_SHARE * (log_sigma - self.usual_log_sigma), np.float64
        )

    def ask(self, descriptor_C: NDArray[np.float32]) -> Acquaintance:
        """How well a frame with this descriptor of unit length is known."""
        distances = _distances(np.asarray(descriptor_C, np.float32)[None], self.descriptors)[0]
        nearest, typical = float(distances.min()), max(float(np.median(distances)), _SMALLEST_TYPICAL)
        return Acquaintance(float(self._widening(nearest)), nearest / typical)

    def widening(self, descriptors_NC: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N,) factors of the standard deviations of poses: 1 at a training frame, far from them in proportion to the
        distance."""
        distances = _distances(np.asarray(descriptors_NC, np.float32), self.descriptors)
        return self._widening(distances.min(1))

    def _widening(self, distance: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(np.hypot(1.0, np.asarray(distance) / (NEAR * self.spacing)), np.float64)

    def save(self, folder: Path) -> None:
        """Write it to ``folder``. Half precision moves a distance by 1e-3 at most and halves the file."""
        np.savez(
            folder / FILE,
            descriptors=self.descriptors.astype(np.float16),
            spacing=self.spacing,
            usual_log_sigma=self.usual_log_sigma,
        )

    @staticmethod
    def load(folder: Path) -> Familiarity | None:
        """What :meth:`save` wrote; None where nothing was.

        Raises:
            SceneError: the file is damaged, or of an earlier version.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                descriptors = data["descriptors"].astype(np.float32)
                length = np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
                return Familiarity(
                    descriptors / length, float(data["spacing"]), np.reshape(data["usual_log_sigma"], 6)
                )
        except KeyError as error:
            raise SceneError(
                f"{path}: of an earlier version ({error.args[0]}); map the place again"
            ) from error
        except (OSError, ValueError) as error:
            raise SceneError(f"{path}: cannot be read ({error})") from error


def _distances(a_NC: NDArray[np.float32], b_MC: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) Euclidean distances of vectors of unit length."""
    # Not by BLAS: its threads wait busily, and take the cores from the network (p99 of a live frame 85 ms, not 35).
    cosines = np.einsum("nc,mc->nm", a_NC, b_MC)
    return np.asarray(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosines)), np.float32)


def motion_widening(widening: ArrayLike) -> NDArray[np.float64]:
    """Factors of the standard deviations of motions where those of poses are ``widening``: depth is less sure where
    nobody has been, but what two images show of a motion is no worse."""
    return np.asarray(np.sqrt(widening), np.float64)
