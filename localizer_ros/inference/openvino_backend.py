"""OpenVINO back end: the default on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import StateKeeper, Tensors
from localizer_ros.inference.engine_cache import engine_folder, openvino_folder
from localizer_ros.inference.model_card import ModelCard
from localizer_ros.inference.openvino_library import openvino


class OpenVinoBackend:
    """See :class:`localizer_ros.inference.backend.Backend`.

    What the network's file is of is what it is computed in; only its fp16 is computed in single precision. OpenVINO's
    own hint of another precision is not used. It takes the last layers as well, and so rounds positions: by 27 cm at
    1 km in fp16, which measured 1.2 times the CPU's seconds of fp32 besides. And its cache takes what was compiled for
    one hint for what is wanted for another (2026.4): fp16 after fp32 was fp32, and fp32 after fp16 was fp16.
    """

    name = "openvino"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig) -> None:
        self.card = card
        core = openvino.Core()
        settings: dict[str, str] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if config.threads:
            settings["INFERENCE_NUM_THREADS"] = str(config.threads)
        # Compiled kernels are a cache that may be deleted at any time; a folder that cannot be written is no error.
        cache = openvino_folder(engine_folder(folder), card)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            settings["CACHE_DIR"] = str(cache)
        except OSError:
            pass
        network = _network(core, folder, card, config.precision)
        try:
            self._model = core.compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise BackendError(
                f"openvino: cannot load {card.network} ({str(error).splitlines()[0]})"
            ) from error
        self._request = self._model.create_infer_request()
        # Handed over once and filled anew for each call: what a call is given is looked through by Python each time.
        self._inputs = {spec.name: np.zeros(spec.shape, np.float32) for spec in card.inputs}
        for name, values in self._inputs.items():
            self._request.set_tensor(name, openvino.Tensor(values, shared_memory=True))
        self._outputs = {spec.name: self._request.get_tensor(spec.name) for spec in card.outputs}
        self._states = StateKeeper(card)

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """See the protocol."""
        given = self._states.inputs(inputs)
        for name, values in self._inputs.items():
            np.copyto(values, given[name])
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise BackendError(f"openvino: {str(error).splitlines()[0]}") from error
        return self._states.keep(
            {name: np.array(tensor.data, np.float32) for name, tensor in self._outputs.items()}
        )

    def reset(self) -> None:
        """See the protocol."""
        self._states.reset()

    def close(self) -> None:
        """See the protocol."""
        del self._outputs, self._request, self._model


def _network(core: openvino.Core, folder: Path, card: ModelCard, precision: str) -> Any:
    """The file of a network in a precision, or what is made of it here where no file was exported."""
    if precision in ("fp32", "int8") or card.made_from:
        return str(folder / card.network)
    # Late: these libraries are of no use in single precision.
    from localizer_ros.inference.onnx_precision import network_in

    return core.read_model(network_in(folder, card, precision), b"")
