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
from typing import Any

import cv2
import numpy as np

from localizer_ros.core.types import BackendError, ConfigError, Float32, UInt8
from localizer_ros.inference.onnx_card import CARD, copy_card, open_session, read_card, run_session

NETWORK_FOLDER = "network"

_KEYS = ("network", "input", "descriptor", "dimensions")


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
    """An image to one vector.

    Args:
        card: path of the model card.

    Raises:
        BackendError: the card or the network cannot be used.
    """

    kind = "onnx"

    def __init__(self, card: Path) -> None:
        self._path, self._card = card, read_card(card, _KEYS)
        self.dimensions = int(self._card["dimensions"])
        self._session = open_session(card, self._card)
        shape = self._session.get_inputs()[0].shape
        fixed = shape[3:1:-1] if all(isinstance(n, int) for n in shape[2:4]) else None
        size = fixed or [self._card.get("width"), self._card.get("height")]
        if not all(isinstance(n, int) and n > 0 for n in size):
            raise BackendError(f"{card}: width and height are needed: the network has no fixed size")
        self._size = (int(size[0]), int(size[1]))
        self._mean = self._channels("mean", 0.0)
        self._std = self._channels("std", 1.0)

    @property
    def summary(self) -> str:
        """For people."""
        return f"network {self._card['network']}"

    def __call__(self, image: UInt8) -> Float32:
        """(G,) float32 of unit length of an (H, W) grey or (H, W, 3) RGB image.

        Raises:
            BackendError: the network fails, or its output is not what the card says.
        """
        colour = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        scaled = np.asarray(cv2.resize(colour, self._size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        tensor = ((scaled / 255.0 - self._mean) / self._std).astype(np.float32).transpose(2, 0, 1)[None]
        (output,) = run_session(
            self._session,
            self._card,
            [str(self._card["descriptor"])],
            {str(self._card["input"]): np.ascontiguousarray(tensor)},
        )
        vector = np.asarray(output, dtype=np.float32).reshape(-1)
        if len(vector) != self.dimensions:
            raise BackendError(
                f"{self._card['network']}: its descriptor has length {len(vector)}, the card says {self.dimensions}"
            )
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def save(self, folder: Path) -> int:
        """Copy card and network to ``folder``; returns the bytes written."""
        copy_card(self._path, folder / NETWORK_FOLDER)
        return sum(file.stat().st_size for file in (folder / NETWORK_FOLDER).iterdir())

    @staticmethod
    def load(folder: Path) -> NetworkDescriptor | None:
        """What :meth:`save` wrote; None when there is none. Raises BackendError when it is damaged."""
        card = folder / NETWORK_FOLDER / CARD
        return NetworkDescriptor(card) if card.is_file() else None

    def _channels(self, key: str, default: float) -> Float32:
        values: Any = self._card.get(key, [default] * 3)
        if not (isinstance(values, list) and len(values) == 3):
            raise BackendError(f"{self._path}: {key}: expected three numbers, got {values!r}")
        return np.array(values, dtype=np.float32)
