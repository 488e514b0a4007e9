"""One way to run a network, whatever runs it: the protocol, and the choice of a back end."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference.model_card import ModelCard, card_path, read_card

Tensors = dict[str, NDArray[np.float32]]


class Backend(Protocol):
    """A loaded network. Created, used and closed in one thread.

    Attributes:
        name: e.g. ``openvino``.
        card: what it takes and gives.
    """

    name: str
    card: ModelCard

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """One call; states are added and kept by the back end. Raises BackendError."""
        ...

    def reset(self) -> None:
        """Set the states to zero."""
        ...

    def close(self) -> None:
        """Release the engine."""
        ...


class StateKeeper:
    """The states of a recurrent network between two calls."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._shapes = {spec.name: spec.shape for spec in card.inputs}
        self.reset()

    def reset(self) -> None:
        """Zero states."""
        self._states = {name: np.zeros(self._shapes[name], np.float32) for name in self._card.states}

    def inputs(self, given: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """The caller's inputs and the states; checks names and shapes."""
        for spec in self._card.inputs:
            if spec.name in self._states:
                continue
            if spec.name not in given:
                raise BackendError(f"{self._card.name}: input {spec.name} is missing")
            if given[spec.name].shape != spec.shape:
                raise BackendError(
                    f"{self._card.name}: input {spec.name}: expected shape {spec.shape}, got {given[spec.name].shape}"
                )
        return {**given, **self._states}

    def keep(self, outputs: Tensors) -> Tensors:
        """Take the new states; returns the outputs as they are."""
        # Back ends may reuse their output memory, so a state is copied.
        self._states = {name: np.array(outputs[out]) for name, out in self._card.states.items()}
        return outputs


def _open_torch(folder: Path, card: ModelCard, config: BackendConfig, samples: int = 0) -> Backend:
    from localizer_ros.inference.torch_backend import TorchBackend

    return TorchBackend(folder, card, config, samples)


def _open_openvino(folder: Path, card: ModelCard, config: BackendConfig) -> Backend:
    from localizer_ros.inference.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(folder, card, config)


def _open_tensorrt(folder: Path, card: ModelCard, config: BackendConfig) -> Backend:
    from localizer_ros.inference.tensorrt_backend import TensorRtBackend

    return TensorRtBackend(folder, card, config)


BACKENDS: dict[str, Callable[[Path, ModelCard, BackendConfig], Backend]] = {
    "torch": _open_torch,
    "openvino": _open_openvino,
    "tensorrt": _open_tensorrt,
}


def automatic_backend() -> str:
    """What ``kind: auto`` means on this machine."""
    if importlib.util.find_spec("tensorrt") is not None and Path("/dev/nvidiactl").exists():
        return "tensorrt"
    for kind in ("openvino", "torch"):
        if importlib.util.find_spec(kind) is not None:
            return kind
    raise BackendError("backend: none of tensorrt, openvino and torch is installed")


def open_backend(folder: Path, name: str, config: BackendConfig, samples: int = 0) -> Backend:
    """The network that a model card describes, loaded.

    Args:
        folder: of the networks of a scene.
        name: of the network.
        config: which back end, and how it runs.
        samples: passes of Monte-Carlo dropout, see :class:`localizer_ros.inference.torch_backend.TorchBackend`.

    Raises:
        SceneError: the network's file is missing or has changed.
        BackendError: the card is missing or malformed, or the back end is not installed or cannot load the network.
    """
    card = read_card(card_path(folder, name), ModelCard)
    kind = automatic_backend() if config.kind == "auto" else config.kind
    file, expected = (card.weights, card.weights_sha256) if kind == "torch" else (card.network, card.sha256)
    path = folder / file
    if sha256_of(path) != expected:
        raise SceneError(f"{path}: has changed since the scene was made")
    if samples:
        if kind != "torch":
            raise BackendError(f"ensemble.samples: {kind} has no dropout; set backend.kind=torch")
        return _open_torch(folder, card, config, samples)
    return BACKENDS[kind](folder, card, config)
