"""What a machine could do, measured, beside what the stages of a frame reach of it.

Two rates bound whatever runs on a CPU: how many numbers it multiplies and adds in a second, and how many bytes it
copies. A network that reaches a third of the first is well compiled; an image stage far below the second computes, or
waits.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.threads import ONE_THREAD, cores
from localizer_ros.core.types import BackendError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.model_card import card_path
from localizer_ros.inference.network_step import MOTION
from localizer_ros.inference.open_backend import network_card
from localizer_ros.inference.processor import has_gpu
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene, has_map

NETWORK_STAGE = "network"
IMAGE_STAGES = ("preprocess", "track_flow", "track_extract", "search_extract")
"""Stages that go through all of an image."""

# Sides of the matrices, and bytes of the copied arrays: beyond any cache.
_MATRIX, _COPIED_BYTES = 1024, 64 << 20
# The best of so many counts: what else runs can only make one slower.
_REPEATS = 5


def limits(result: Mapping[str, Any], source: FrameSource, config: LocalizerConfig) -> dict[str, Any]:
    """Rates of this machine, and what each back end of a benchmark reaches of them.

    Args:
        result: of :func:`localizer_ros.evaluation.benchmark.bench`.
        source: the frames that were run.
        config: with which.

    Returns:
        ``machine``: see :func:`machine_rates`. ``reached``: by back end, see :func:`reached`.
    """
    rates = machine_rates()
    gflop = network_gflop(Scene.load(Path(result["scene"])), config)
    # A network on a GPU is not bound by what the CPU can do.
    on_gpu = ("tensorrt", "torch") if has_gpu() else ()
    image_bytes = source.read(0).image.nbytes
    stages = {
        kind: found["latency_ms"]["stages"]
        for kind, found in result["backends"].items()
        if "error" not in found
    }
    return {
        "machine": rates,
        "reached": {
            kind: reached(found, rates, None if kind in on_gpu else gflop, image_bytes)
            for kind, found in stages.items()
        },
    }


def reached(
    stages: Mapping[str, Mapping[str, float]],
    rates: Mapping[str, Mapping[str, float]],
    gflop: float | None,
    image_bytes: int,
) -> dict[str, dict[str, float]]:
    """What stages reach of the rates of all threads.

    Args:
        stages: median time ``p50`` of each, ms.
        rates: of the machine.
        gflop: of one call of the network, 10^9 operations; None when unknown.
        image_bytes: of a frame.

    Returns:
        By stage: of the network ``gflop``, ``gflop_s`` and ``of_gemm``, its share of what is possible; of image stages
        ``mb_s`` and ``of_copy``.
    """
    found: dict[str, dict[str, float]] = {}
    for name in (NETWORK_STAGE, *IMAGE_STAGES):
        spent_s = 1e-3 * stages[name]["p50"] if name in stages else 0.0
        if spent_s <= 0.0:
            continue
        if name != NETWORK_STAGE:
            rate = image_bytes / spent_s
            found[name] = {"mb_s": 1e-6 * rate, "of_copy": 1e-9 * rate / rates["copy_gb_s"]["all_threads"]}
        elif gflop is not None:
            rate = gflop / spent_s
            found[name] = {
                "gflop": gflop,
                "gflop_s": rate,
                "of_gemm": rate / rates["gemm_gflop_s"]["all_threads"],
            }
    return found


def network_gflop(scene: Scene, config: LocalizerConfig) -> float | None:
    """10^9 operations of the networks that run for one frame; None for methods without one, or without OpenVINO."""
    folder = scene.path / NETWORKS_FOLDER
    if not card_path(folder, scene.method).is_file():
        return None
    precision = config.backend.precision
    networks = [folder / network_card(folder, scene.method, "openvino", precision).network]
    alone = config.refine == "none" or not has_map(scene.path)
    if alone and card_path(folder, MOTION).is_file():
        networks.append(folder / network_card(folder, MOTION, "openvino", "fp32").network)
    counted = [multiply_adds(network) for network in networks]
    return None if None in counted else 2e-9 * sum(count for count in counted if count is not None)


def multiply_adds(network: Path) -> int | None:
    """Multiplications with an addition in the convolutions and products of an ONNX file: nearly all that it computes.
    None where OpenVINO, which reads it, is not installed. Raises BackendError for a file that it cannot read."""
    try:
        from localizer_ros.inference.openvino_library import openvino
    except BackendError:
        return None
    try:
        operations = openvino.Core().read_model(str(network)).get_ordered_ops()
    except RuntimeError as error:
        raise BackendError(f"{network}: cannot be read ({str(error).splitlines()[0]})") from error
    found = 0
    for operation in operations:
        kind = operation.get_type_name()
        if kind not in ("Convolution", "GroupConvolution", "MatMul"):
            continue
        answers = math.prod(operation.output(0).get_shape())
        a, b = (operation.input(n).get_shape() for n in (0, 1))
        if kind == "MatMul":
            each = a[-2] if operation.get_attributes()["transpose_a"] else a[-1]
        else:
            # Weights are (O, I, h, w), or (G, O / G, I / G, h, w).
            each = math.prod(list(b)[1 if kind == "Convolution" else 2 :])
        found += answers * each
    return found


def machine_rates() -> dict[str, dict[str, float]]:
    """``gemm_gflop_s`` and ``copy_gb_s`` of this machine, each of ``one_thread`` and of ``all_threads``: products of
    float32 matrices, and bytes read and written again, 10^9 a second.

    Raises:
        BackendError: they could not be measured.
    """
    # In a process of its own, in which linear algebra has one thread: as many of them run as there are cores.
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, **ONE_THREAD}
    measured = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if measured.returncode != 0:
        raise BackendError(f"limits: the measurement ended with {measured.returncode}")
    rates: dict[str, dict[str, float]] = json.loads(measured.stdout)
    return rates


def _measured() -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(_MATRIX, _MATRIX)).astype(np.float32) for _ in range(2)]

    def multiply() -> None:
        matrices[0] @ matrices[1]

    def copy_from(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> Callable[[], None]:
        return lambda: np.copyto(target, source)

    every = cores(0)
    arrays = [[np.ones(_COPIED_BYTES, np.uint8) for _ in range(2)] for _ in range(every)]
    copies = [copy_from(*pair) for pair in arrays]
    gemm = 2e-9 * _MATRIX**3
    return {
        "gemm_gflop_s": {
            "one_thread": gemm / _best_s([multiply]),
            "all_threads": every * gemm / _best_s([multiply] * every),
        },
        "copy_gb_s": {
            "one_thread": 1e-9 * _COPIED_BYTES / _best_s(copies[:1]),
            "all_threads": 1e-9 * every * _COPIED_BYTES / _best_s(copies),
        },
    }


def _best_s(work: list[Callable[[], None]]) -> float:
    """Shortest time in which some pieces of work were done, each in a thread of its own."""
    with ThreadPoolExecutor(len(work)) as pool:

        def once() -> float:
            began_s = time.perf_counter()
            for done in [pool.submit(each) for each in work]:
                done.result()
            return time.perf_counter() - began_s

        once()
        return min(once() for _ in range(_REPEATS))


if __name__ == "__main__":
    print(json.dumps(_measured()))
