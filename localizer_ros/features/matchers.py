"""Matchers of keypoints between two images, behind one interface.

``mutual``: each other's nearest descriptors with a ratio test. ``lightglue``: a network of that family (LightGlue,
LighterGlue) in ONNX, described by a model card beside it::

    network: lighterglue.onnx
    sha256: ...                      # optional; checked when given
    keypoints: [kpts0, kpts1]        # (1, N, 2) float
    coordinates: normalised          # (xy - size/2) / (longer side/2), or pixels
    descriptors: [desc0, desc1]      # (1, N, D) float, unit length
    matches: matches                 # (M, 2) integers; with a third, leading column of the batch in some exports
    scores: scores                   # (M,)
    min_score: 0.1
    dimensions: 64                   # D, that of the extractor it was trained with
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from localizer_ros.core.types import BackendError, ConfigError, Float32, Index
from localizer_ros.features.local_features import mutual_matches
from localizer_ros.inference.onnx_card import open_session, read_card, run_session

MATCHER_FOLDER = "networks/matcher"

_KEYS = ("network", "keypoints", "descriptors", "matches", "scores", "dimensions")


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of two images to match.

    Attributes:
        xy_px: (N, 2) keypoints.
        descriptors: (N, D) unit vectors.
        size_px: width and height of the image.
    """

    xy_px: Float32
    descriptors: Float32
    size_px: tuple[int, int]


class Matcher(Protocol):
    """Finds the keypoints of two images that show the same."""

    def match(self, a: Side, b: Side) -> Index:
        """(K, 2) indices into a and b, every keypoint at most once."""
        ...


class MutualMatcher:
    """Implements ``Matcher`` by each other's nearest descriptors.

    Args:
        ratio: largest distance to the nearest over that to the second nearest.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def match(self, a: Side, b: Side) -> Index:
        """See :class:`Matcher`."""
        return mutual_matches(a.descriptors, b.descriptors, self._ratio)


class LightGlueMatcher:
    """Implements ``Matcher`` by a network of the LightGlue family (Lindenberger et al. 2023).

    Args:
        card: path of the model card.

    Raises:
        BackendError: the card or the network cannot be used.
    """

    def __init__(self, card: Path) -> None:
        self._card = read_matcher_card(card)
        self._session = open_session(card, self._card)
        self._min_score = float(self._card.get("min_score", 0.1))
        self._pixels = self._card.get("coordinates", "normalised") == "pixels"

    def match(self, a: Side, b: Side) -> Index:
        """See :class:`Matcher`. Raises BackendError when the network fails."""
        if len(a.xy_px) == 0 or len(b.xy_px) == 0:
            return np.zeros((0, 2), dtype=np.intp)
        given: dict[str, Any] = {}
        for n, side in enumerate((a, b)):
            given[self._card["keypoints"][n]] = self._coordinates(side)[None]
            given[self._card["descriptors"][n]] = np.ascontiguousarray(side.descriptors, np.float32)[None]
        matches, scores = run_session(
            self._session, self._card, [self._card["matches"], self._card["scores"]], given
        )
        pairs = np.asarray(matches).reshape(-1, np.asarray(matches).shape[-1])[:, -2:]
        sure = np.asarray(scores).reshape(-1) >= self._min_score
        return np.asarray(pairs[sure], dtype=np.intp)

    def _coordinates(self, side: Side) -> Float32:
        if self._pixels:
            return np.ascontiguousarray(side.xy_px, np.float32)
        size = np.array(side.size_px, dtype=np.float32)
        return np.asarray((side.xy_px - size / 2.0) / (size.max() / 2.0), dtype=np.float32)


def open_matcher(kind: Literal["mutual", "lightglue"], ratio: float, card: Path | None) -> Matcher:
    """The matcher of a config.

    Args:
        kind: which one.
        ratio: of ``mutual``.
        card: model card of ``lightglue``.

    Raises:
        ConfigError: ``lightglue`` without a card.
        BackendError: its network cannot be opened.
    """
    if kind == "mutual":
        return MutualMatcher(ratio)
    if card is None or not card.is_file():
        where = "" if card is None else f" ({card} is missing)"
        raise ConfigError(f"matcher: lightglue needs the network that structure.matcher.card names{where}")
    return LightGlueMatcher(card)


def read_matcher_card(path: Path) -> dict[str, Any]:
    """A matcher's model card. Raises BackendError when it is missing, malformed, or not that of its network."""
    card = read_card(path, _KEYS)
    for key in ("keypoints", "descriptors"):
        if not isinstance(card[key], list) or len(card[key]) != 2:
            raise BackendError(f"{path}: {key}: expected the names of two inputs, got {card[key]!r}")
    if card.get("coordinates", "normalised") not in ("normalised", "pixels"):
        raise BackendError(f"{path}: coordinates: expected normalised or pixels, got {card['coordinates']!r}")
    return card


def check_matcher(card: Path, dimensions: int) -> None:
    """Raise ConfigError when a matcher was not trained with descriptors of this length; see also read_matcher_card."""
    trained = int(read_matcher_card(card)["dimensions"])
    if trained != dimensions:
        raise ConfigError(
            f"structure.matcher.card: {card} matches descriptors of length {trained}, but the extractor's have "
            f"{dimensions}"
        )
