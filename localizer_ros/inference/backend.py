"""One way to run a network, whatever runs it: the model card, the protocol, and the choice of a back end."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError, SceneError

Tensors = dict[str, NDArray[np.float32]]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name and shape of one float32 tensor."""

    name: str
    shape: tuple[int, ...]


class ModelCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a network takes and gives; a JSON file beside its weights.

    Attributes:
        name: file stem of the weights and of the ONNX file.
        inputs: what the caller gives.
        outputs: what the caller gets, states included.
        states: input name -> output name; kept by the back end from one call to the next, zero after a reset.
        network: what ``networks.build.build_network`` needs to make it again.
        mean: RGB mean of the 0..1 input image.
        std: RGB standard deviation of the 0..1 input image.
        camera: the ideal pinhole of the input image, as ``Camera.to_dict``.
        refined_camera: how that image was really taken, as far as a map has found out;
            ``RefinedCamera.to_dict``; empty when unknown.
        sigma_scale: factors on the predicted standard deviations, from the validation part: absolute
            [rotation, translation], motion [rotation, translation].
        weights_sha256: of NAME.safetensors.
        onnx_sha256: of NAME.onnx.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: dict[str, str]
    network: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    camera: dict[str, Any]
    refined_camera: dict[str, list[float]] = {}
    sigma_scale: Annotated[tuple[float, float, float, float], Meta(description="see the class")] = (
        1,
        1,
        1,
        1,
    )
    weights_sha256: str = ""
    onnx_sha256: str = ""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @staticmethod
    def read(path: Path) -> ModelCard:
        """Read from JSON. Raises SceneError naming the file."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=ModelCard)
        except (OSError, msgspec.MsgspecError) as error:
            raise SceneError(f"{path}: not a readable model card ({error})") from error


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


def sha256_of(path: Path) -> str:
    """Hex digest of a file. Raises SceneError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror})") from error


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
    """Load the network ``folder/NAME.json`` describes.

    Args:
        folder: with NAME.json and the network.
        name: of the network.
        config: which back end, and how it runs.
        samples: passes of Monte-Carlo dropout, see :class:`localizer_ros.inference.torch_backend.TorchBackend`.

    Raises:
        SceneError: a file is missing or has changed.
        BackendError: the back end is not installed or cannot load the network.
    """
    card = ModelCard.read(folder / f"{name}.json")
    kind = automatic_backend() if config.kind == "auto" else config.kind
    suffix, expected = ("safetensors", card.weights_sha256) if kind == "torch" else ("onnx", card.onnx_sha256)
    path = folder / f"{name}.{suffix}"
    if sha256_of(path) != expected:
        raise SceneError(f"{path}: has changed since the scene was made")
    if samples:
        if kind != "torch":
            raise BackendError(f"ensemble.samples: {kind} has no dropout; set backend.kind=torch")
        return _open_torch(folder, card, config, samples)
    return BACKENDS[kind](folder, card, config)
