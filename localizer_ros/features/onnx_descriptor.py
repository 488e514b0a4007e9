"""Global descriptors by an ONNX network that a model card describes.

The card is a YAML file beside the network::

    network: mobilenet_pooled.onnx
    sha256: ...                      # optional; checked when given
    input: image                     # (1, 3, H, W) float RGB
    width: 320                       # pixels that any image is scaled to; not needed where the network has a fixed size
    height: 240
    mean: [0.485, 0.456, 0.406]      # optional: subtracted from 0..1; default 0
    std: [0.229, 0.224, 0.225]       # optional: divided by; default 1
    descriptor: descriptor           # (1, G) float of any length
    dimensions: 1280                 # G
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from msgspec import Meta

from localizer_ros.core.exposure import brightened
from localizer_ros.core.types import BackendError, ConfigError, Float32, UInt8
from localizer_ros.inference.model_card import COPIED_CARD, Card, Size3, copy_card, read_card
from localizer_ros.inference.onnx_session import OnnxSession

NETWORK_FOLDER = "network"


class DescriptorCard(Card, frozen=True, kw_only=True):
    """The card of a global descriptor; see the module for what each key means."""

    input: Annotated[str, Meta(description="the name of an input")]
    width: Annotated[int, Meta(ge=0, description="pixels")] = 0
    height: Annotated[int, Meta(ge=0, description="pixels")] = 0
    mean: Size3 = (0.0, 0.0, 0.0)
    std: Size3 = (1.0, 1.0, 1.0)
    descriptor: Annotated[str, Meta(description="the name of an output")]
    dimensions: Annotated[int, Meta(ge=1, description="a whole number above 0")]


def open_network_descriptor(card: str) -> NetworkDescriptor:
    """The network of ``retrieval.card``.

    Raises:
        ConfigError: no card is named.
        BackendError: the card or the network cannot be used.
    """
    if not card:
        raise ConfigError("structure.retrieval.card: kind onnx needs a model card")
    return NetworkDescriptor(Path(card))


class NetworkDescriptor:
    """Implements ``GlobalDescriptor`` with a network.

    Args:
        card: path of the model card.

    Raises:
        BackendError: the card or the network cannot be used.
    """

    def __init__(self, card: Path) -> None:
        self._path, self._card = card, read_card(card, DescriptorCard)
        self._session = OnnxSession(card, self._card)
        self._size = self._session.image_size_px or (self._card.width, self._card.height)
        if min(self._size) <= 0:
            raise BackendError(f"{card}: width and height are needed: the network has no fixed size")
        self._mean = np.array(self._card.mean, dtype=np.float32)
        self._std = np.array(self._card.std, dtype=np.float32)

    @property
    def summary(self) -> str:
        """See :class:`GlobalDescriptor`."""
        return f"network {self._card.network}"

    def __call__(self, image: UInt8, local: Float32) -> Float32:
        """See :class:`GlobalDescriptor`; local descriptors are not used."""
        return self.of(image)

    def of(self, image: UInt8) -> Float32:
        """(G,) float32 of unit length of an (H, W) grey or (H, W, 3) RGB image.

        Raises:
            BackendError: the network fails, or its output is not what the card says.
        """
        c = self._card
        bright = brightened(image)
        colour = bright if image.ndim == 3 else np.repeat(bright[:, :, None], 3, axis=2)
        scaled = np.asarray(cv2.resize(colour, self._size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        tensor = ((scaled / 255.0 - self._mean) / self._std).astype(np.float32).transpose(2, 0, 1)[None]
        (output,) = self._session.run([c.descriptor], {c.input: np.ascontiguousarray(tensor)})
        vector = np.asarray(output, dtype=np.float32).reshape(-1)
        if len(vector) != c.dimensions:
            raise BackendError(
                f"{c.network}: its descriptor has length {len(vector)}, the card says {c.dimensions}"
            )
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def save(self, folder: Path) -> int:
        """See :class:`GlobalDescriptor`: copies card and network."""
        copy_card(self._path, DescriptorCard, folder / NETWORK_FOLDER)
        return sum(file.stat().st_size for file in (folder / NETWORK_FOLDER).iterdir())

    @staticmethod
    def load(folder: Path) -> NetworkDescriptor | None:
        """What :meth:`save` wrote; None when there is none. Raises BackendError when it is damaged."""
        card = folder / NETWORK_FOLDER / COPIED_CARD
        return NetworkDescriptor(card) if card.is_file() else None
