"""A recorded double of TensorRT and CUDA, for machines without a GPU. Nothing here is NVIDIA's.

It has the classes, functions and parameters that the back end calls and no others; ``test_tensorrt_api`` compares them
with the real bindings and with a record of those. It computes: an engine is the ONNX file behind a header, run by ONNX
Runtime on the addresses it was given, when its stream is waited for or its graph launched. Every call is recorded.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

HEADER = b"double of an engine\n"


class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class CudaDouble:
    """The module ``cuda.bindings.runtime``.

    Attributes:
        calls: names of the functions called, in order.
        fails: function -> the error that it answers from now on.
        device, pinned: what is allocated, by address.
    """

    cudaError_t = CudaError
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, CudaError] = {}
        self.devices = 1
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.graphs: set[int] = set()
        self.captured: list[Callable[[], None]] | None = None
        self._recorded: dict[int, list[Callable[[], None]]] = {}

    def _answer(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.calls.append(name)
        error = self.fails.get(name, CudaError.cudaSuccess)
        return (error, *((None,) * len(values) if error else values))

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Add work to a stream, or to the graph that is recorded on it."""
        assert stream in self.streams, "work on a stream that is not there"
        (self.streams[stream] if self.captured is None else self.captured).append(work)

    def cudaGetErrorString(self, error: CudaError) -> tuple[Any, ...]:
        return CudaError.cudaSuccess, error.name.encode()

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return self._answer("cudaGetDeviceCount", self.devices)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return self._answer("cudaGetDeviceProperties", SimpleNamespace(name=b"Double", major=8, minor=7))

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        stream = 7 + len(self.calls)
        self.streams[stream] = []
        return self._answer("cudaStreamCreateWithFlags", stream)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        del self.streams[stream]
        return self._answer("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert self.captured is None, "a stream that is recorded cannot be waited for"
        work, self.streams[stream] = self.streams[stream], []
        for step in work:
            step()
        return self._answer("cudaStreamSynchronize")

    def _allocate(self, name: str, size: int, memory: dict[int, Any]) -> tuple[Any, ...]:
        answer = self._answer(name, 0)
        if answer[0]:
            return answer
        buffer = ctypes.create_string_buffer(b"\x7f" * size, size)  # not zero: nobody may rely on that
        address = ctypes.addressof(buffer)
        memory[address] = buffer
        return answer[0], address

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size, self.device)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMallocHost", size, self.pinned)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        del self.device[devPtr]
        return self._answer("cudaFree")

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        del self.pinned[ptr]
        return self._answer("cudaFreeHost")

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: int) -> tuple[Any, ...]:
        assert devPtr in self.device
        self.put(stream, lambda: ctypes.memset(devPtr, value, count))
        return self._answer("cudaMemsetAsync")

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        to, of = (self.device, self.pinned) if kind == 1 else (self.pinned, self.device)
        assert dst in to and src in of, "a copy in the wrong direction"
        self.put(stream, lambda: ctypes.memmove(dst, src, count))
        return self._answer("cudaMemcpyAsync")

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.captured = []
        return self._answer("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        assert self.captured is not None
        graph = 100 + len(self._recorded)
        self._recorded[graph], self.captured = self.captured, None
        self.graphs.add(graph)
        return self._answer("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        answer = self._answer("cudaGraphInstantiate", graph + 1000)
        if not answer[0]:
            self.graphs.add(graph + 1000)
        return answer

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        self.graphs.remove(graph)
        return self._answer("cudaGraphDestroy")

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:
        self.graphs.remove(graphExec)
        return self._answer("cudaGraphExecDestroy")

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:
        self.streams[stream] += self._recorded[graphExec - 1000]
        return self._answer("cudaGraphLaunch")


class TensorRtDouble:
    """The module ``tensorrt``, or ``tensorrt_lean``, which has no builder.

    Attributes:
        calls: what was called, in order.
        fails: names of the functions that answer None or False from now on.
        built: (flags of the builder, network) of each build.
    """

    def __init__(self, cuda: CudaDouble, version: str = "11.4.0.106", lean: bool = False) -> None:
        self.__version__ = version
        self.calls: list[str] = []
        self.fails: set[str] = set()
        self.built: list[tuple[set[str], bytes]] = []
        self.timings: list[bytes] = []
        self.types: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        double = self

        class Logger:
            WARNING = "warning"

            def __init__(self, min_severity: str = WARNING) -> None:
                double.calls.append("Logger")

        class DataType(enum.Enum):
            FLOAT = 0
            HALF = 1

        class IExecutionContext:
            def __init__(self, session: Any, shapes: dict[str, tuple[int, ...]]) -> None:
                self._session, self._shapes = session, shapes
                self._addresses: dict[str, int] = {}

            def set_tensor_address(self, name: str, memory: int) -> bool:
                assert memory in cuda.device, "an address that is not on the GPU"
                self._addresses[name] = memory
                return "set_tensor_address" not in double.fails

            def execute_async_v3(self, stream_handle: int) -> bool:
                double.calls.append("execute_async_v3")
                if "execute_async_v3" in double.fails:
                    return False
                addresses = dict(self._addresses)
                cuda.put(stream_handle, lambda: self._execute(addresses))
                return True

            def _execute(self, addresses: dict[str, int]) -> None:
                views = {name: _view(addresses[name], shape) for name, shape in self._shapes.items()}
                given = {i.name: views[i.name].copy() for i in self._session.get_inputs()}
                for output in self._session.get_outputs():
                    views[output.name].fill(np.nan)  # what is read after it is written shows
                names = [output.name for output in self._session.get_outputs()]
                for name, value in zip(names, self._session.run(names, given), strict=True):
                    views[name][...] = value

        class ICudaEngine:
            def __init__(self, network: bytes) -> None:
                self._session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
                io = (*self._session.get_inputs(), *self._session.get_outputs())
                self._shapes = {tensor.name: tuple(tensor.shape) for tensor in io}

            @property
            def num_io_tensors(self) -> int:
                return len(self._shapes)

            def get_tensor_name(self, index: int) -> str:
                return list(self._shapes)[index]

            def get_tensor_dtype(self, name: str) -> Any:
                return double.types.get(name, DataType.FLOAT)

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return double.shapes.get(name, self._shapes[name])

            def create_execution_context(self) -> Any:
                failed = "create_execution_context" in double.fails
                return None if failed else IExecutionContext(self._session, self._shapes)

        class Runtime:
            def __init__(self, logger: Any) -> None:
                assert isinstance(logger, Logger)

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
                double.calls.append("deserialize_cuda_engine")
                if not serialized_engine.startswith(HEADER):
                    return None
                return ICudaEngine(serialized_engine.removeprefix(HEADER))

        self.Logger, self.DataType, self.Runtime = Logger, DataType, Runtime
        self.ICudaEngine, self.IExecutionContext = ICudaEngine, IExecutionContext
        if not lean:
            _add_builder(self)


def _add_builder(double: Any) -> None:
    class BuilderFlag(enum.IntEnum):
        TF32 = 7
        VERSION_COMPATIBLE = 13
        EXCLUDE_LEAN_RUNTIME = 14

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 1

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            assert flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
            self.content = b""

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> bytes:
            return self.content + b"."

    class IProgressMonitor:
        def __init__(self) -> None:
            self.ready = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    class IBuilderConfig:
        def __init__(self) -> None:
            self.flags_set = {"TF32"}  # as in the real one, where it is set from the start
            self.progress_monitor: Any = None
            self._cache: Any = None

        def set_flag(self, flag: BuilderFlag) -> None:
            self.flags_set.add(flag.name)

        def clear_flag(self, flag: BuilderFlag) -> None:
            self.flags_set.discard(flag.name)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            double.timings.append(serialized_timing_cache)
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            if "set_timing_cache" in double.fails and cache.content:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder:
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, double.Logger)

        def create_network(self, flags: int = 0) -> Any:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            monitor = config.progress_monitor
            assert monitor.ready, "the base class was not set up"
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Timing", "Building Engine", 5)
            assert monitor.step_complete("Timing", 0) and monitor.step_complete("Building Engine", 0)
            monitor.phase_finish("Timing")
            monitor.phase_finish("Building Engine")
            double.built.append((set(config.flags_set), network.content))
            return None if "build_serialized_network" in double.fails else HEADER + network.content

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self.num_errors = network, 0

        def parse(self, model: bytes) -> bool:
            try:
                onnx.load_from_string(model)
            except Exception:
                self.num_errors = 1
                return False
            self._network.content = model
            return True

        def get_error(self, index: int) -> str:
            return json.dumps({"error": index}) + "\nnot an ONNX file"

    for kind in (
        BuilderFlag,
        NetworkDefinitionCreationFlag,
        INetworkDefinition,
        ITimingCache,
        IProgressMonitor,
    ):
        setattr(double, kind.__name__, kind)
    for kind in (IBuilderConfig, Builder, OnnxParser):
        setattr(double, kind.__name__, kind)


def _view(address: int, shape: tuple[int, ...]) -> Any:
    memory = (ctypes.c_byte * (4 * int(np.prod(shape)))).from_address(address)
    return np.ctypeslib.as_array(memory).view(np.float32).reshape(shape)
