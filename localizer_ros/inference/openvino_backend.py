"""OpenVINO back end: the default on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import StateKeeper, Tensors
from localizer_ros.inference.engine_cache import ENGINES
from localizer_ros.inference.model_card import ModelCard

try:
    import openvino
except ImportError as error:  # pragma: no cover - depends on the machine
    raise BackendError(f"openvino: cannot be imported ({error}); set backend.kind to torch") from error

# What is not quantised in an int8 network is computed in single precision.
_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenVinoBackend:
    """See :class:`localizer_ros.inference.backend.Backend`."""

    name = "openvino"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig) -> None:
        self.card = card
        core = openvino.Core()
        settings: dict[str, str] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[config.precision],
        }
        if config.threads:
            settings["INFERENCE_NUM_THREADS"] = str(config.threads)
        # Compiled kernels are a cache that may be deleted at any time; a folder that cannot be written is no error.
        engines = folder.parent / ENGINES
        try:
            engines.mkdir(exist_ok=True)
            settings["CACHE_DIR"] = str(engines)
        except OSError:
            pass
        try:
            self._model = core.compile_model(str(folder / card.network), "CPU", settings)
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
