"""Local features: keypoints and descriptors of one image, and how descriptors are stored.

Keypoints are in pixels of the image as it came, pixel centres at integer coordinates, distortion included; what they
see is :mod:`localizer_ros.geometry.rays`'s business. Descriptors are stored as bytes and compared as unit
vectors, so that an inner product is a cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import Float32, Index, UInt8

# RootSIFT components are square roots of shares of 1: none is above 0.5 in practice, so 512 uses the whole byte.
_BYTES_PER_UNIT = 512.0


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures:
    """Keypoints of one image.

    Attributes:
        xy_px: (N, 2) float32, strongest first.
        descriptors: (N, D) float32 of unit length.
        coarse: (N,) bool; true where the keypoint is also found without the finest octave.
    """

    xy_px: Float32
    descriptors: Float32
    coarse: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.xy_px)

    @property
    def fine(self) -> bool:
        """Whether some were found with the finest octave alone."""
        return not bool(self.coarse.all())

    def only(self, keep: NDArray[np.bool_] | Index) -> LocalFeatures:
        """The chosen keypoints, in their order."""
        return LocalFeatures(self.xy_px[keep], self.descriptors[keep], self.coarse[keep])


class Extractor(Protocol):
    """Finds local features.

    Attributes:
        dimensions: length D of a descriptor.
        signed: true when components of a descriptor can be negative.
    """

    dimensions: int
    signed: bool

    def extract(self, image: UInt8, max_keypoints: int, fine: bool) -> LocalFeatures:
        """Features of an image.

        Args:
            image: (H, W) grey or (H, W, 3) RGB uint8.
            max_keypoints: the strongest so many.
            fine: with the finest octave, at about four times the time.
        """
        ...


def no_features(dimensions: int) -> LocalFeatures:
    """The features of an image without any."""
    return LocalFeatures(
        np.zeros((0, 2), np.float32), np.zeros((0, dimensions), np.float32), np.zeros(0, dtype=bool)
    )


def to_bytes(descriptors: Float32, signed: bool) -> UInt8:
    """(N, D) uint8 of unit vectors; :func:`from_bytes` reads them back to about one degree."""
    if signed:
        # Learned descriptors spread over all components: 64 of them stay well inside +-0.5.
        return np.asarray(np.clip(np.rint(descriptors * 255.0) + 128.0, 0, 255), dtype=np.uint8)
    return np.asarray(np.clip(np.rint(descriptors * _BYTES_PER_UNIT), 0, 255), dtype=np.uint8)


def from_bytes(stored: UInt8, signed: bool) -> Float32:
    """(N, D) float32 of unit length."""
    values = floats(stored, signed)
    values /= lengths(values)[:, None]
    return values


def floats(stored: UInt8, signed: bool) -> Float32:
    """(N, D) float32 in the direction of stored descriptors, of any length."""
    values = stored.astype(np.float32)
    if signed:
        values -= 128.0
    return values


def lengths(values: Float32) -> Float32:
    """(N,) lengths of (N, D) vectors, never zero."""
    return np.asarray(np.maximum(np.sqrt(np.einsum("nd,nd->n", values, values)), 1e-9), np.float32)
