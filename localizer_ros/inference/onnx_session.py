"""Runs the network of a user's model card with ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import BackendError
from localizer_ros.inference.model_card import Card, network_of


class OnnxSession:
    """An open network.

    Args:
        path: of its model card.
        card: what that says.

    Raises:
        BackendError: the file is missing or is not the card's, or cannot be opened.
    """

    def __init__(self, path: Path, card: Card) -> None:
        import onnxruntime

        self._network = card.network
        file = network_of(path, card)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions have no common base but this.
        except Exception as error:
            raise BackendError(f"{path}: the network cannot be opened ({_line(error)})") from error

    @property
    def image_size_px(self) -> tuple[int, int] | None:
        """Width and height of the first input, a (1, C, H, W) image; None where the network takes any."""
        shape = self._session.get_inputs()[0].shape
        height, width = shape[2:4]
        return (width, height) if isinstance(width, int) and isinstance(height, int) else None

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the order of their names.

        Raises:
            BackendError: the network has no such input or output, or fails.
        """
        try:
            return [np.asarray(value) for value in self._session.run(list(outputs), dict(inputs))]
        except Exception as error:
            raise BackendError(f"{self._network}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
