"""The choice of a back end, and the network that it loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference.backend import Backend, automatic_backend
from localizer_ros.inference.model_card import ModelCard, card_path, read_card


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
