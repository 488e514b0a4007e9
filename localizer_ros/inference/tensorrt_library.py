"""Finds TensorRT, CUDA's driver and the GPU, in an order that cannot crash, and says in one line what is missing.

The lean runtime of TensorRT ends the process with a segmentation fault when it is used on a machine without a driver
(10.16 and 11.4), so the driver is looked for before anything of TensorRT is touched.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from localizer_ros.core.types import BackendError

DRIVER = "libcuda.so.1"
"""CUDA's driver, which comes with the GPU's and with no package of Python."""

# Modules by which TensorRT's Python packages go: the package itself, and its bindings beside a system's libraries.
_FULL = ("tensorrt", "tensorrt_bindings")
_LEAN = ("tensorrt_lean", "tensorrt_lean_bindings")


class TensorRtMissing(BackendError):
    """Something that TensorRT needs is not on this machine."""


@dataclass(frozen=True)
class Library:
    """TensorRT and CUDA on this machine.

    Attributes:
        trt: the module of TensorRT, full or lean; the lean one has no builder and no parser.
        cuda: the module of CUDA's runtime.
        lean: whether ``trt`` is the lean runtime.
        gpu: name and compute capability of the GPU.
    """

    trt: Any
    cuda: Any
    lean: bool
    gpu: str

    @property
    def version(self) -> str:
        """What an engine is tied to beside the GPU: the exact version, or the major one of an engine for the lean
        runtime, which runs what any version of the same number has built."""
        version = str(self.trt.__version__)
        return f"tensorrt lean {version.split('.')[0]}" if self.lean else f"tensorrt {version}"

    def logger(self) -> Any:
        """A logger for TensorRT's objects: warnings and errors to standard error."""
        return self.trt.Logger(self.trt.Logger.WARNING)

    def call(self, function: str, *arguments: Any) -> Any:
        """The value of a call of CUDA's runtime; raises BackendError with CUDA's own words."""
        return check(self.cuda, getattr(self.cuda, function)(*arguments))


def check(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """The value in an answer of CUDA's runtime; None where it has none.

    Raises:
        BackendError: it is an error; with CUDA's own words.
    """
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        raise BackendError(f"tensorrt: CUDA says: {text.decode() if isinstance(text, bytes) else text}")
    return values[0] if values else None


def open_library(lean: bool) -> Library:
    """TensorRT with a GPU to run on.

    Args:
        lean: the lean runtime is wanted, as its engines are; it is also what is taken where nothing else is installed.

    Raises:
        TensorRtMissing: there is no driver, no library or no GPU; says which.
    """
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise TensorRtMissing(
            f"tensorrt: this machine has no NVIDIA driver ({DRIVER} cannot be loaded), and so no GPU to run on"
        ) from error
    trt, is_lean = _import_tensorrt(lean)
    try:
        cuda = import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise TensorRtMissing(
            "tensorrt: the package cuda-bindings (of cuda-python) is not installed"
        ) from error
    answer = cuda.cudaGetDeviceCount()
    if answer[0] == cuda.cudaError_t.cudaErrorNoDevice or not check(cuda, answer):
        raise TensorRtMissing("tensorrt: the NVIDIA driver finds no GPU")
    properties = check(cuda, cuda.cudaGetDeviceProperties(0))
    gpu = f"{properties.name.decode()} sm_{properties.major}{properties.minor}"
    return Library(trt, cuda, is_lean, gpu)


def _import_tensorrt(lean: bool) -> tuple[Any, bool]:
    """The module, and whether it is the lean runtime."""
    broken = ""
    for name in (*(() if lean else _FULL), *_LEAN):
        try:
            return import_module(name), name in _LEAN
        except ImportError as error:
            # Installed, but without the libraries that it needs.
            if error.name != name:
                broken = broken or f"{name} cannot be imported ({error})"
    if broken:
        raise TensorRtMissing(f"tensorrt: {broken}")
    wanted = "tensorrt_lean" if lean else "tensorrt or tensorrt_lean"
    raise TensorRtMissing(f"tensorrt: {wanted} is not installed (on a Jetson it comes with JetPack)")
