"""Local features: keypoints and descriptors of one image, and the matches between two sets of descriptors.

Keypoints are in pixels of the image as it came, pixel centres at integer coordinates, distortion included; what they
see is :mod:`localizer_ros.geometry.rays`'s business. Descriptors are stored as bytes and compared as unit
vectors, so that an inner product is a cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import LocalFeatureConfig
from localizer_ros.core.types import ConfigError, Float32, Index, UInt8

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


def grey(image: UInt8) -> UInt8:
    """(H, W) uint8 of a grey or RGB image."""
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


class RootSift:
    """SIFT keypoints with the square root of L1-normalised descriptors (Hellinger distance).

    The finest octave of SIFT works on the image at twice its size, which is where most of the time goes. Without it the
    image is handed over at half its size, so that OpenCV's first octave is the image's own resolution.

    Args:
        contrast: least contrast of a keypoint.
        max_image_px: a longer image side is scaled down to this first.
    """

    dimensions = 128
    signed = False

    def __init__(self, contrast: float, max_image_px: int) -> None:
        self._contrast, self._max_image_px = contrast, max_image_px
        self._detectors: dict[int, cv2.SIFT] = {}

    def extract(self, image: UInt8, max_keypoints: int, fine: bool) -> LocalFeatures:
        """See :meth:`Extractor.extract`."""
        pixels = grey(image)
        height, width = pixels.shape
        scale = min(1.0, self._max_image_px / max(height, width)) * (1.0 if fine else 0.5)
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        detector = self._detectors.get(max_keypoints)
        if detector is None:
            # Precise upscaling: without it keypoints of the finest octave sit a quarter of a pixel off the others.
            detector = cv2.SIFT_create(  # type: ignore[attr-defined]
                nfeatures=max_keypoints, contrastThreshold=self._contrast, enable_precise_upscale=True
            )
            self._detectors[max_keypoints] = detector
        keypoints, raw = detector.detectAndCompute(pixels, None)
        if raw is None or len(keypoints) == 0:
            return no_features(self.dimensions)
        response = np.array([k.response for k in keypoints], dtype=np.float32)
        # SIFT repeats a keypoint for each of its orientations, and keeps ties beyond the number asked for.
        order = np.argsort(-response, kind="stable")[:max_keypoints]
        xy = np.array([k.pt for k in keypoints], dtype=np.float64)[order]
        octave = np.array([k.octave & 255 for k in keypoints])[order]
        shrink = np.array([width / pixels.shape[1], height / pixels.shape[0]])
        xy = (xy + 0.5) * shrink - 0.5
        root = np.sqrt(raw[order] / np.maximum(raw[order].sum(axis=1, keepdims=True), 1e-9))
        coarse = (octave != 255) if fine else np.ones(len(order), dtype=bool)
        return LocalFeatures(xy.astype(np.float32), root.astype(np.float32), coarse)


def no_features(dimensions: int) -> LocalFeatures:
    """The features of an image without any."""
    return LocalFeatures(
        np.zeros((0, 2), np.float32), np.zeros((0, dimensions), np.float32), np.zeros(0, dtype=bool)
    )


def open_extractor(config: LocalFeatureConfig, folder: Path | None = None) -> Extractor:
    """The extractor of a config.

    Args:
        config: which one.
        folder: where a relative model card lies (the scene); None = the working folder.

    Raises:
        ConfigError: kind onnx without a model card.
        BackendError: the network cannot be opened.
    """
    if config.kind == "rootsift":
        return RootSift(config.contrast, config.max_image_px)
    if not config.card:
        raise ConfigError("structure.features.card: kind onnx needs a model card")
    from localizer_ros.features.onnx_extractor import OnnxExtractor

    return OnnxExtractor((folder or Path()) / config.card, config.max_image_px)


def to_bytes(descriptors: Float32, signed: bool) -> UInt8:
    """(N, D) uint8 of unit vectors; :func:`from_bytes` reads them back to about one degree."""
    if signed:
        # Learned descriptors spread over all components: 64 of them stay well inside +-0.5.
        return np.asarray(np.clip(np.rint(descriptors * 255.0) + 128.0, 0, 255), dtype=np.uint8)
    return np.asarray(np.clip(np.rint(descriptors * _BYTES_PER_UNIT), 0, 255), dtype=np.uint8)


def from_bytes(stored: UInt8, signed: bool) -> Float32:
    """(N, D) float32 of unit length."""
    values = stored.astype(np.float32)
    if signed:
        values -= 128.0
    norm = np.sqrt(np.einsum("nd,nd->n", values, values))[:, None]
    values /= np.maximum(norm, 1e-9)
    return values


def mutual_matches(a: Float32, b: Float32, ratio: float, max_distance: float = 0.9) -> Index:
    """Pairs that are each other's nearest neighbours and clearly nearer than the second nearest.

    Args:
        a: (N, D) unit vectors.
        b: (M, D) unit vectors.
        ratio: largest distance to the nearest over the distance to the second nearest of a's descriptor.
        max_distance: largest Euclidean distance.

    Returns:
        (K, 2) indices into a and b.
    """
    if len(a) == 0 or len(b) < 2:
        return np.zeros((0, 2), dtype=np.intp)
    similarity = a @ b.T
    rows = np.arange(len(a))
    best = similarity.argmax(axis=1)
    first = similarity[rows, best]
    # A pair is mutual when the row's best value is also the best of its column; the maximum over columns is
    # several times faster than a second argmax along the strided axis.
    mutual = similarity.max(axis=0)[best] <= first
    similarity[rows, best] = -2.0
    second = similarity.max(axis=1)
    keep = mutual & _clear(first, second, ratio) & (2.0 - 2.0 * first < max_distance**2)
    return np.stack([rows[keep], best[keep]], axis=1)


def point_matches(
    query: Float32, database: Float32, point_of: NDArray[np.int32], ratio: float, max_distance: float = 0.9
) -> tuple[Index, Index]:
    """Each query descriptor's point: nearest observation, clearly nearer than any observation of another point.

    Args:
        query: (N, D) unit vectors.
        database: (M, D) unit vectors of observations.
        point_of: (M,) the point that each observation is of.
        ratio: largest distance over that to the nearest observation of another point.
        max_distance: largest Euclidean distance.

    Returns:
        (K,) indices into ``query`` and (K,) points, at most one match a point, the most alike.
    """
    nothing = np.zeros(0, dtype=np.intp)
    if len(query) == 0 or len(database) < 2:
        return nothing, nothing
    similarity = query @ database.T
    rows = np.arange(len(query))
    best = similarity.argmax(axis=1)
    first = similarity[rows, best]
    near = np.nonzero(2.0 - 2.0 * first < max_distance**2)[0]
    similarity, best, first = similarity[near], best[near], first[near]
    rows = np.arange(len(near))
    point = point_of[best]
    second = np.full(len(near), -1.0, dtype=np.float32)
    # Observations of the same point are the next nearest ones: step over them.
    open_rows, candidate = rows, best
    for _ in range(12):
        similarity[open_rows, candidate] = -2.0
        candidate = similarity[open_rows].argmax(axis=1)
        second[open_rows] = similarity[open_rows, candidate]
        same = point_of[candidate] == point[open_rows]
        if not same.any():
            break
        open_rows, candidate = open_rows[same], candidate[same]
    keep = np.nonzero(_clear(first, second, ratio))[0]
    order = keep[np.argsort(-first[keep], kind="stable")]
    _, unique = np.unique(point[order], return_index=True)
    chosen = order[np.sort(unique)]
    return near[chosen].astype(np.intp), point[chosen].astype(np.intp)


def _clear(first: Float32, second: Float32, ratio: float) -> NDArray[np.bool_]:
    return np.asarray((2.0 - 2.0 * first) < ratio**2 * (2.0 - 2.0 * second))
