"""TensorRT back end, for a Jetson or a desktop GPU: TensorRT 10 and 11, full or lean.

Never run on a GPU by this project's tests, which have none: every name that is used here is checked against NVIDIA's
own bindings, and every line is driven against a double of them that computes with ONNX Runtime.

One frame is one launch of a CUDA graph: images from pinned memory to the GPU, the network, answers to pinned memory.
States stay on the GPU in two places each; every other frame reads the one and writes the other, which is a graph of its
own, and nothing is copied.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import BackendError
from localizer_ros.inference.backend import Tensors, check_inputs
from localizer_ros.inference.engine_cache import LEAN, cached_engine, engine_folders, engine_name
from localizer_ros.inference.model_card import ModelCard, TensorSpec
from localizer_ros.inference.tensorrt_engine import LoggedProgress, build_engine
from localizer_ros.inference.tensorrt_library import Library, open_library

logger = logging.getLogger(__name__)


class TensorRtBackend:
    """See :class:`localizer_ros.inference.backend.Backend`. Everything of CUDA belongs to the thread that made it."""

    name = "tensorrt"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig) -> None:
        self.card = card
        self._library = library = open_library(config.lean)
        blob = _engine(library, folder, card, config)
        self._log = library.logger()
        self._runtime = library.trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(blob)
        if engine is None:
            places = " or ".join(str(engines) for engines in engine_folders(folder) if engines.is_dir())
            raise BackendError(
                f"tensorrt: the engine of {card.name} does not load on {library.gpu} with {library.version}; delete "
                f"{places}"
            )
        self._engine = engine
        self._stream = library.call("cudaStreamCreateWithFlags", library.cuda.cudaStreamNonBlocking)
        self._tensors = _Tensors(library, card, int(self._stream))
        self._frame = _Frame(library, engine, self._tensors, int(self._stream))

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """See the protocol."""
        check_inputs(self.card, inputs)
        for name, array in self._tensors.given.items():
            np.copyto(array, inputs[name])
        self._frame.run()
        return {name: array.copy() for name, array in self._tensors.answers.items()}

    def reset(self) -> None:
        """See the protocol."""
        self._tensors.clear_states()

    def close(self) -> None:
        """See the protocol."""
        self._frame.close()
        self._tensors.close()
        self._library.call("cudaStreamDestroy", self._stream)
        del self._frame, self._engine, self._runtime


def engine_file(library: Library, card: ModelCard, config: BackendConfig) -> str:
    """Name of the file that holds the engine of a network on this machine."""
    name = f"{card.name}{LEAN}" if library.lean or config.lean else card.name
    return engine_name(name, card.sha256, library.gpu, library.version, config.precision)


def _engine(library: Library, folder: Path, card: ModelCard, config: BackendConfig) -> bytes:
    """The engine of a network, from the scene's cache or built."""
    lean = library.lean or config.lean

    def build(engines: Path) -> bytes:
        # The lean runtime builds nothing, so where its engines are wanted the full library must be there as well.
        builder = open_library(False) if library.lean and config.lean else library
        # Late: a robot with its engines needs no reader of ONNX.
        from localizer_ros.inference.onnx_precision import network_in

        network = network_in(folder, card, config.precision)
        return build_engine(builder, card.name, network, lean, engines, LoggedProgress())

    return cached_engine(folder, engine_file(library, card, config), build)


class _Tensors:
    """Memory of a network's tensors, on the GPU and pinned on the host.

    Attributes:
        given: inputs that the caller gives, in pinned memory.
        answers: outputs that the caller gets, in pinned memory.
        copies_in: (address on the GPU, on the host, bytes) of each of ``given``.
        copies_out: (address on the host, on the GPU, bytes) of each of ``answers``.
        addresses: name -> address on the GPU, once for even and once for odd frames.
    """

    def __init__(self, library: Library, card: ModelCard, stream: int) -> None:
        self._library, self._stream = library, stream
        self._device: list[int] = []
        self._pinned: list[int] = []
        self._states: list[tuple[int, int]] = []
        self.given: Tensors = {}
        self.answers: Tensors = {}
        self.copies_in: list[tuple[int, int, int]] = []
        self.copies_out: list[tuple[int, int, int]] = []
        self.addresses: tuple[dict[str, int], dict[str, int]] = ({}, {})
        kept = set(card.states.values())
        shapes = {spec.name: spec for spec in card.inputs}
        for spec in (s for s in card.inputs if s.name not in card.states):
            address, host, array = self._allocate(spec)
            self.given[spec.name] = array
            self.copies_in.append((address, host, array.nbytes))
        for spec in (s for s in card.outputs if s.name not in kept):
            address, host, array = self._allocate(spec)
            self.answers[spec.name] = array
            self.copies_out.append((host, address, array.nbytes))
        for name, output in card.states.items():
            size = _bytes_of(shapes[name])
            even, odd = self._on_device(size), self._on_device(size)
            self._states += [(even, size), (odd, size)]
            self.addresses[0].update({name: even, output: odd})
            self.addresses[1].update({name: odd, output: even})
        self.clear_states()

    def clear_states(self) -> None:
        """Zero states."""
        for address, size in self._states:
            self._library.call("cudaMemsetAsync", address, 0, size, self._stream)

    def close(self) -> None:
        """Release the memory."""
        for address in self._device:
            self._library.call("cudaFree", address)
        for address in self._pinned:
            self._library.call("cudaFreeHost", address)

    def _allocate(self, spec: TensorSpec) -> tuple[int, int, NDArray[np.float32]]:
        """Addresses on the GPU and on the host, and the latter's array."""
        size = _bytes_of(spec)
        address = self._on_device(size)
        host = int(self._library.call("cudaMallocHost", size))
        self._pinned.append(host)
        for addresses in self.addresses:
            addresses[spec.name] = address
        memory = (ctypes.c_byte * size).from_address(host)
        return address, host, np.ctypeslib.as_array(memory).view(np.float32).reshape(spec.shape)

    def _on_device(self, size: int) -> int:
        address = int(self._library.call("cudaMalloc", size))
        self._device.append(address)
        return address


class _Frame:
    """One frame's work on the GPU, recorded once for even and once for odd frames."""

    def __init__(self, library: Library, engine: Any, tensors: _Tensors, stream: int) -> None:
        self._library, self._tensors, self._stream = library, tensors, stream
        _check_tensors(library, engine, tensors)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BackendError("tensorrt: the GPU's memory does not suffice for the engine")
        self._odd = 0
        self._graphs: list[Any] = []
        # Both kinds of frame run once before they are recorded: TensorRT puts off what it does at a first run.
        kinds = range(2 if tensors.addresses[0] != tensors.addresses[1] else 1)
        for kind in kinds:
            self._submit(kind)
        library.call("cudaStreamSynchronize", stream)
        self._graphs = self._recorded(len(kinds))
        self._kinds = len(kinds)
        tensors.clear_states()

    def run(self) -> None:
        """Run it and wait for the answers."""
        kind = self._odd % self._kinds
        if self._graphs:
            self._library.call("cudaGraphLaunch", self._graphs[kind], self._stream)
        else:
            self._submit(kind)
        self._library.call("cudaStreamSynchronize", self._stream)
        self._odd = 1 - self._odd

    def close(self) -> None:
        """Release the graphs and the engine's working memory."""
        for graph in self._graphs:
            self._library.call("cudaGraphExecDestroy", graph)
        del self._context

    def _recorded(self, kinds: int) -> list[Any]:
        """The graph of each kind of frame; empty, with a warning, when the engine cannot be recorded."""
        cuda, graphs = self._library.cuda, []
        try:
            for kind in range(kinds):
                mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
                self._library.call("cudaStreamBeginCapture", self._stream, mode)
                try:
                    self._submit(kind)
                finally:
                    graph = self._library.call("cudaStreamEndCapture", self._stream)
                graphs.append(self._library.call("cudaGraphInstantiate", graph, 0))
                self._library.call("cudaGraphDestroy", graph)
        except BackendError as error:
            logger.warning("%s: runs without a CUDA graph", error)
            return []
        return graphs

    def _submit(self, kind: int) -> None:
        """Put one frame's work on the stream."""
        kinds = self._library.cuda.cudaMemcpyKind
        for name, address in self._tensors.addresses[kind].items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"tensorrt: the engine does not take the memory of {name}")
        for device, host, size in self._tensors.copies_in:
            self._copy(device, host, size, kinds.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(self._stream):
            raise BackendError("tensorrt: the engine failed to run; TensorRT's log says why")
        for host, device, size in self._tensors.copies_out:
            self._copy(host, device, size, kinds.cudaMemcpyDeviceToHost)

    def _copy(self, to: int, of: int, size: int, kind: Any) -> None:
        self._library.call("cudaMemcpyAsync", to, of, size, kind, self._stream)


def _check_tensors(library: Library, engine: Any, tensors: _Tensors) -> None:
    """Raise BackendError unless an engine takes and gives what the card says, in single precision."""
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    expected = set(tensors.addresses[0])
    if names != expected:
        raise BackendError(
            f"tensorrt: expected an engine with {', '.join(sorted(expected))}, got {', '.join(sorted(names))}"
        )
    for name in sorted(names):
        kind = engine.get_tensor_dtype(name)
        if kind != library.trt.DataType.FLOAT:
            raise BackendError(f"tensorrt: {name}: expected FLOAT in the engine, got {kind}")
    for name, array in {**tensors.given, **tensors.answers}.items():
        shape = tuple(engine.get_tensor_shape(name))
        if shape != array.shape:
            raise BackendError(f"tensorrt: {name}: expected shape {array.shape} in the engine, got {shape}")


def _bytes_of(spec: TensorSpec) -> int:
    return 4 * int(np.prod(spec.shape))
