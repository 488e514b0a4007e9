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
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from localizer_ros.core.types import ConfigError, Float32, Index
from localizer_ros.features.descriptor_matching import mutual_matches
from localizer_ros.inference.model_card import Card, network_of, read_card
from localizer_ros.inference.onnx_session import OnnxSession

MATCHER_FOLDER = "networks/matcher"


class MatcherCard(Card, frozen=True, kw_only=True):
    """The card of a matcher; see the module for what each key means."""

    keypoints: Annotated[tuple[str, str], Meta(description="the names of two inputs")]
    coordinates: Annotated[Literal["normalised", "pixels"], Meta(description="normalised or pixels")] = (
        "normalised"
    )
    descriptors: Annotated[tuple[str, str], Meta(description="the names of two inputs")]
    matches: Annotated[str, Meta(description="the name of an output")]
    scores: Annotated[str, Meta(description="the name of an output")]
    min_score: Annotated[float, Meta(ge=0.0, le=1.0, description="a number between 0 and 1")] = 0.1
    dimensions: Annotated[int, Meta(ge=1, description="a whole number above 0")]


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
        """(K, 2) indices into a and b, every keypoint at most once. Raises BackendError when a network fails."""
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
        self._card = read_card(card, MatcherCard)
        self._session = OnnxSession(card, self._card)

    def match(self, a: Side, b: Side) -> Index:
        """See :class:`Matcher`. Raises BackendError when the network fails."""
        if len(a.xy_px) == 0 or len(b.xy_px) == 0:
            return np.zeros((0, 2), dtype=np.intp)
        c = self._card
        given: dict[str, NDArray[Any]] = {}
        for n, side in enumerate((a, b)):
            given[c.keypoints[n]] = self._coordinates(side)[None]
            given[c.descriptors[n]] = np.ascontiguousarray(side.descriptors, np.float32)[None]
        matches, scores = self._session.run([c.matches, c.scores], given)
        pairs = matches.reshape(-1, matches.shape[-1])[:, -2:]
        sure = scores.reshape(-1) >= c.min_score
        return np.asarray(pairs[sure], dtype=np.intp)

    def _coordinates(self, side: Side) -> Float32:
        if self._card.coordinates == "pixels":
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


def check_matcher(card: Path, dimensions: int) -> None:
    """Check a matcher's model card before hours of work.

    Args:
        card: path of the card.
        dimensions: length of the extractor's descriptors.

    Raises:
        ConfigError: it was trained with descriptors of another length.
        BackendError: the card or its network is missing or malformed.
    """
    matcher = read_card(card, MatcherCard)
    network_of(card, matcher)
    if matcher.dimensions != dimensions:
        raise ConfigError(
            f"structure.matcher.card: {card} matches descriptors of length {matcher.dimensions}, but the extractor's "
            f"have {dimensions}"
        )
