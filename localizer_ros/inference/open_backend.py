"""The choice of a back end, and the network that it loads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference.backend import Backend
from localizer_ros.inference.choice import automatic_backend, candidates
from localizer_ros.inference.model_card import ModelCard, card_path, read_card, variant_name
from localizer_ros.inference.processor import has_gpu, require_native_bf16

logger = logging.getLogger(__name__)


def _open_torch(folder: Path, card: ModelCard, config: BackendConfig, samples: int = 0) -> Backend:
    from localizer_ros.inference.torch_backend import TorchBackend

    return TorchBackend(folder, card, config, samples)


def _open_openvino(folder: Path, card: ModelCard, config: BackendConfig) -> Backend:
    from localizer_ros.inference.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(folder, card, config)


def _open_tensorrt(folder: Path, card: ModelCard, config: BackendConfig) -> Backend:
    from localizer_ros.inference.tensorrt_backend import TensorRtBackend
    from localizer_ros.inference.tensorrt_library import TensorRtMissing

    try:
        return TensorRtBackend(folder, card, config)
    except TensorRtMissing as error:
        others = [kind for kind in candidates(config.precision) if kind != "tensorrt"]
        advice = f"; backend.kind {others[0]} can run here" if others else ""
        raise BackendError(f"{error}{advice}") from error


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
    kind = automatic_backend(folder, name, config) if config.kind == "auto" else config.kind
    card = network_card(folder, name, kind, config.precision)
    if config.precision != "fp32" and not card.made_from and kind != "torch":
        logger.warning(
            "%s: what %s costs this network was not judged; `localizer export SCENE --backend %s --precision %s "
            "--source RECORDING` does that on the recording that was mapped",
            name,
            config.precision,
            kind,
            config.precision,
        )
    file, expected = (card.weights, card.weights_sha256) if kind == "torch" else (card.network, card.sha256)
    path = folder / file
    if sha256_of(path) != expected:
        raise SceneError(f"{path}: has changed since the scene was made")
    if samples:
        if kind != "torch":
            raise BackendError(f"ensemble.samples: {kind} has no dropout; set backend.kind=torch")
        return _open_torch(folder, card, config, samples)
    return BACKENDS[kind](folder, card, config)


def require_precision(kind: str, precision: str) -> None:
    """Raise BackendError where a back end cannot run networks of a precision on this machine."""
    if precision == "bf16" and kind in ("openvino", "torch") and not (kind == "torch" and has_gpu()):
        require_native_bf16(kind)
    if precision == "int8" and kind == "torch":
        raise BackendError("torch: does not run int8 networks; set backend.kind to openvino or tensorrt")


def network_card(folder: Path, name: str, kind: str, precision: str) -> ModelCard:
    """The card of what a back end loads: the network, or what was exported of it in a lower precision.

    Where nothing was exported in half precision, back ends make it of the network in single precision themselves.

    Raises:
        BackendError: there is no such card, the back end cannot run this precision, or the quantised network is missing
            or was made from another one.
    """
    card = read_card(card_path(folder, name), ModelCard)
    require_precision(kind, precision)
    if precision == "fp32" or kind == "torch":
        return card
    path = card_path(folder, variant_name(name, precision))
    variant = read_card(path, ModelCard) if path.is_file() else None
    if variant is not None and variant.made_from == card.sha256:
        return variant
    if precision != "int8":
        return card
    advice = (
        f"`localizer export SCENE --backend {kind} --precision int8 --source RECORDING` makes it from the recording "
        "that was mapped"
    )
    if variant is None:
        raise BackendError(f"{path}: there is no int8 network in this scene; {advice}")
    raise BackendError(f"{path}: was made from another {card.network}; {advice}")
