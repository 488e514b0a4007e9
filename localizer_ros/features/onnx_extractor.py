"""Local features by an ONNX network that a model card describes.

The card is a YAML file beside the network::

    network: xfeat_sparse_2048.onnx
    sha256: ...                 # optional; checked when given
    input: images               # (1, C, H, W) float, 0..1
    channels: 3                 # optional: 3 = RGB (default), 1 = grey
    multiple_of: 32             # H and W; a network of one fixed size is given that
    keypoints: keypoints        # (N, 2) or (1, N, 2) float or integer: x, y
    coordinates: pixels         # optional: pixels of the input (default), or signed_unit: -1..1 from the first to the
                                # last pixel of each axis, as of ALIKED
    descriptors: descriptors    # (N, D), (1, N, D) or, transposed, (1, D, N) float of any length
    scores: scores              # optional: (N,) or (1, N); without it keypoints come strongest first
    dimensions: 64              # D

XFeat, ALIKED, DISK and SuperPoint exports with their key point selection inside fit this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from msgspec import Meta

from localizer_ros.core.exposure import bright_grey, brightened
from localizer_ros.core.types import Array, BackendError, Float32, UInt8
from localizer_ros.features.local_features import LocalFeatures, no_features
from localizer_ros.inference.model_card import Card, read_card
from localizer_ros.inference.onnx_session import OnnxSession


class ExtractorCard(Card, frozen=True, kw_only=True):
    """The card of an extractor; see the module for what each key means."""

    input: Annotated[str, Meta(description="the name of an input")]
    channels: Annotated[Literal[1, 3], Meta(description="1 or 3")] = 3
    multiple_of: Annotated[int, Meta(ge=1, description="a whole number above 0")]
    keypoints: Annotated[str, Meta(description="the name of an output")]
    coordinates: Annotated[Literal["pixels", "signed_unit"], Meta(description="pixels or signed_unit")] = (
        "pixels"
    )
    descriptors: Annotated[str, Meta(description="the name of an output")]
    scores: Annotated[str, Meta(description="the name of an output")] = ""
    dimensions: Annotated[int, Meta(ge=1, description="a whole number above 0")]


class OnnxExtractor:
    """Implements ``Extractor`` with ONNX Runtime.

    Args:
        card: path of the model card.
        max_image_px: a longer image side is scaled down to this first.

    Raises:
        BackendError: the card or the network cannot be used.
    """

    signed = True

    def __init__(self, card: Path, max_image_px: int) -> None:
        self._card = read_card(card, ExtractorCard)
        self._max_image_px = max_image_px
        self.dimensions = self._card.dimensions
        self._session = OnnxSession(card, self._card)

    def extract(self, image: UInt8, max_keypoints: int, fine: bool) -> LocalFeatures:
        """See ``Extractor.extract``; ``fine`` makes no difference: the network has one resolution.

        Raises:
            BackendError: the network fails, or its outputs are not what the card says.
        """
        height, width = image.shape[:2]
        size = self._size(width, height)
        tensor = self._tensor(image, size)
        c = self._card
        names = [c.keypoints, c.descriptors, *([c.scores] if c.scores else [])]
        keypoints, descriptors, *scores = self._session.run(names, {c.input: tensor})
        xy = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
        if len(xy) == 0:
            return no_features(self.dimensions)
        vectors = self._rows(np.asarray(descriptors, dtype=np.float32), len(xy))
        strength = np.asarray(scores[0]).reshape(-1) if scores else -np.arange(len(xy))
        order = np.argsort(-strength, kind="stable")[:max_keypoints]
        shrink = np.array([width / size[0], height / size[1]])
        at = (self._pixels(xy[order], size) + 0.5) * shrink - 0.5
        unit = vectors[order] / np.maximum(np.linalg.norm(vectors[order], axis=1, keepdims=True), 1e-9)
        return LocalFeatures(at.astype(np.float32), unit.astype(np.float32), np.ones(len(order), dtype=bool))

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self._session.image_size_px is not None:
            return self._session.image_size_px
        scale = min(1.0, self._max_image_px / max(height, width))
        step = self._card.multiple_of
        return (
            max(step, int(width * scale) // step * step),
            max(step, int(height * scale) // step * step),
        )

    def _tensor(self, image: UInt8, size: tuple[int, int]) -> Float32:
        if self._card.channels == 1:
            pixels = bright_grey(image)[:, :, None]
        else:
            bright = brightened(image)
            pixels = bright if image.ndim == 3 else np.repeat(bright[:, :, None], 3, axis=2)
        if size != (image.shape[1], image.shape[0]):
            resized = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            pixels = resized.reshape(size[1], size[0], -1)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255.0)

    def _pixels(self, xy: Array, size: tuple[int, int]) -> Array:
        if self._card.coordinates == "pixels":
            return xy
        return (xy + 1.0) / 2.0 * (np.array(size, dtype=np.float64) - 1.0)

    def _rows(self, descriptors: Float32, count: int) -> Float32:
        """(N, D) of descriptors in either order of axes."""
        D = self.dimensions
        axes = descriptors.shape[-2:]
        if axes == (count, D):
            return descriptors.reshape(count, D)
        if axes == (D, count):
            return np.ascontiguousarray(descriptors.reshape(D, count).T)
        raise BackendError(
            f"{self._card.network}: descriptors are {descriptors.shape}, but there are {count} keypoints and the "
            f"card says {D} dimensions"
        )
