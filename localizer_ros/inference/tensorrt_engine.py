"""Compiles an ONNX network to an engine of TensorRT 10 or 11, strongly typed.

The precision of each tensor is what the network says (``onnx_precision`` and ``quantization`` write it there): TensorRT
11 knows no other way, and TensorRT 10 is told not to use any. What the network computes in single precision is not
computed in TF32 either: an alignment's normal equations do not survive its 10 bits.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from localizer_ros.core.progress import Progress
from localizer_ros.core.types import BackendError
from localizer_ros.inference.engine_cache import engine_key, read_blob, write_blob
from localizer_ros.inference.tensorrt_library import Library

logger = logging.getLogger(__name__)

# Between two lines about an engine that is being built.
_TELL_EVERY_S = 5.0


def build_engine(
    library: Library, name: str, network: bytes, lean: bool, cache: Path, progress: Progress
) -> bytes:
    """The engine of a network, for this GPU.

    Args:
        library: with a builder.
        name: of the network, for messages.
        network: the ONNX file's content.
        lean: build one that the lean runtime of any version of the same major number can run.
        cache: folder of the timing cache, which makes the next build on this GPU faster; need not exist.
        progress: told as it goes.

    Raises:
        BackendError: this is the lean runtime, which has no builder; the network cannot be read or built.
    """
    trt = library.trt
    if library.lean:
        raise BackendError(
            f"tensorrt: the lean runtime cannot build the engine of {name} for {library.gpu}; build it where the full "
            "TensorRT and the same GPU are, with `localizer export SCENE --backend tensorrt --lean`"
        )
    log = library.logger()
    builder = trt.Builder(log)
    definition = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(definition, log)
    if not parser.parse(network):
        problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"tensorrt: cannot read {name} ({' '.join(problems.split())})")
    settings = builder.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)
    if lean:
        settings.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # The engine is run by an installed lean runtime. One inside the engine would be code of the host, which a
        # scene must not bring along.
        settings.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    settings.progress_monitor = _monitor(trt, name, progress)
    timings = cache / f"tensorrt-{engine_key(library.gpu, library.version)}.timings"
    _load_timings(settings, timings)
    engine = builder.build_serialized_network(definition, settings)
    if engine is None:
        raise BackendError(f"tensorrt: the engine of {name} could not be built; TensorRT's log says why")
    write_blob(timings, bytes(settings.get_timing_cache().serialize()))
    return bytes(engine)


def _strongly_typed(trt: Any) -> int:
    """Flags of a strongly typed network: ignored by TensorRT 11, where there is no other kind."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _load_timings(settings: Any, path: Path) -> None:
    """Give the builder the timings of builds before; those of another machine are not taken."""
    known = read_blob(path) or b""
    timings = settings.create_timing_cache(known)
    if timings is None or not settings.set_timing_cache(timings, False):
        settings.set_timing_cache(settings.create_timing_cache(b""), False)


def _monitor(trt: Any, name: str, progress: Progress) -> Any:
    """TensorRT's own kind of object to be told about a build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of a module without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            # The outermost phase tells how far the build is; those within come and go.
            self._outermost = ""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            if parent_phase is None:
                self._outermost = phase_name
                progress(f"{name}: {phase_name}", 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outermost:
                progress(f"{name}: {phase_name}", step + 1, self._steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            if phase_name == self._outermost:
                progress(f"{name}: {phase_name}", steps, steps)

    return Monitor()


class LoggedProgress:
    """Progress as lines of the log, of a node that has no terminal: one every few seconds."""

    def __init__(self, every_s: float = _TELL_EVERY_S) -> None:
        self._every_s = every_s
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See :data:`localizer_ros.core.progress.Progress`."""
        now = time.monotonic()
        if now - self._told >= self._every_s:
            self._told = now
            logger.info(
                "tensorrt builds an engine, which takes minutes once: %s, %d of %d", stage, done, total
            )
