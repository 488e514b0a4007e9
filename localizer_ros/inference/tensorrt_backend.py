"""TensorRT back end, for a Jetson or a desktop GPU.

Written for TensorRT 10 and cuda-python 12 or 13. It needs an NVIDIA GPU, which the project's CI has not: what surrounds
it (cache, states, the choice of a back end, the messages) is tested, these lines are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import StateKeeper, Tensors, automatic_backend
from localizer_ros.inference.engine_cache import ENGINES, cached_engine, engine_key
from localizer_ros.inference.model_card import ModelCard

try:
    import tensorrt as trt
    from cuda.bindings import runtime as cudart
except ImportError as error:
    raise BackendError(
        f"tensorrt: {error.name or 'tensorrt'} is not installed; it needs an NVIDIA GPU and the packages tensorrt and "
        f"cuda-python (on a Jetson they come with JetPack). With backend.kind auto this machine would take "
        f"{automatic_backend()}"
    ) from error


class TensorRtBackend:
    """See :class:`localizer_ros.inference.backend.Backend`. The CUDA context belongs to the thread that made it."""

    name = "tensorrt"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig) -> None:
        self.card = card
        self._logger = trt.Logger(trt.Logger.WARNING)
        properties = _check(cudart.cudaGetDeviceProperties(0))
        gpu = f"{properties.name.decode()} sm_{properties.major}{properties.minor}"
        key = engine_key(card.sha256, gpu, f"tensorrt {trt.__version__}", config.precision)
        onnx = folder / card.network
        blob = cached_engine(
            folder.parent / ENGINES, card.name, key, lambda: self._build(onnx, config.precision)
        )
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(blob)
        if self._engine is None:
            raise BackendError(
                f"tensorrt: the engine of {onnx.name} does not load; delete the scene's engines folder"
            )
        self._context = self._engine.create_execution_context()
        self._stream = _check(cudart.cudaStreamCreate())
        self._shapes = {spec.name: spec.shape for spec in (*card.inputs, *card.outputs)}
        self._device = {
            name: _check(cudart.cudaMalloc(4 * int(np.prod(s)))) for name, s in self._shapes.items()
        }
        for name, pointer in self._device.items():
            self._context.set_tensor_address(name, int(pointer))
        self._host = {spec.name: np.empty(spec.shape, np.float32) for spec in card.outputs}
        self._states = StateKeeper(card)

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """See the protocol."""
        given = self._states.inputs(inputs)
        to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        # Kept until the stream is done: an asynchronous copy reads them after this line has gone on.
        arrays = {spec.name: np.ascontiguousarray(given[spec.name], np.float32) for spec in self.card.inputs}
        for name, array in arrays.items():
            _check(
                cudart.cudaMemcpyAsync(
                    self._device[name], array.ctypes.data, array.nbytes, to_device, self._stream
                )
            )
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError("tensorrt: the engine failed to run")
        for name, array in self._host.items():
            _check(
                cudart.cudaMemcpyAsync(
                    array.ctypes.data, self._device[name], array.nbytes, to_host, self._stream
                )
            )
        _check(cudart.cudaStreamSynchronize(self._stream))
        return self._states.keep({name: array.copy() for name, array in self._host.items()})

    def reset(self) -> None:
        """See the protocol."""
        self._states.reset()

    def close(self) -> None:
        """See the protocol."""
        for pointer in self._device.values():
            _check(cudart.cudaFree(pointer))
        self._device = {}
        _check(cudart.cudaStreamDestroy(self._stream))
        del self._context, self._engine

    def _build(self, onnx: Path, precision: str) -> bytes:
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(onnx)):
            problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise BackendError(f"tensorrt: cannot read {onnx.name} ({problems})")
        settings = builder.create_builder_config()
        if precision == "fp16":
            settings.set_flag(trt.BuilderFlag.FP16)
        elif precision == "bf16":
            settings.set_flag(trt.BuilderFlag.BF16)
        engine = builder.build_serialized_network(network, settings)
        if engine is None:
            raise BackendError(f"tensorrt: the engine of {onnx.name} could not be built; its log says why")
        return bytes(engine)


def _check(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call; raises BackendError with CUDA's own words."""
    error, *values = answer
    if error != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(error)
        raise BackendError(f"tensorrt: CUDA says {text.decode() if isinstance(text, bytes) else text}")
    return values[0] if values else None
