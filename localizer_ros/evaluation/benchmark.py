"""How long every stage takes and how much memory it needs, for each back end of this machine.

Each back end runs in a process of its own, so that one does not pay for the memory or the threads of another.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import msgspec

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import BackendError, ConfigError, LocalizerError, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.answers import percentiles
from localizer_ros.evaluation.environment import peak_rss_mb, versions
from localizer_ros.evaluation.run_localizer import FrameLocalizer, run_localizer
from localizer_ros.evaluation.smoother_benchmark import smoother_benchmark
from localizer_ros.inference.model_card import card_path
from localizer_ros.inference.open_backend import BACKENDS
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene

WARM_UP = 3
"""First frames, which also allocate and compile; they are shown apart."""

NO_ANSWER = "no absolute pose"
"""Among the sources of answers: frames that have none of their own."""


def bench(
    scene_path: Path,
    source: FrameSource,
    config: LocalizerConfig | None = None,
    limit: int = 200,
    smoother_frames: int = 0,
    index_images: Sequence[int] = (),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Times of the whole pipeline on a recording, once for each back end that is installed.

    Args:
        scene_path: the scene.
        source: the frames, already cut to a split.
        config: of the localizer; with a ``backend.kind`` other than auto only that one runs.
        limit: frames for each back end.
        smoother_frames: also run the smoother alone over this many simulated frames; 0 does not.
        index_images: also time retrieval with the scene's index grown to these sizes; empty does not.
        progress: told as it goes.

    Returns:
        Plain values: ``backends`` by name, each with ``open_s``, ``frames``, ``answered``, ``latency_ms`` (with
        ``first``, the slowest of the first ``WARM_UP`` frames, which the percentiles leave out, and ``answers``, the
        same by what gave the answer: tracking, a full search, nothing), ``throughput_hz`` (without reading the images)
        and ``peak_rss_mb``, or with ``error``; ``smoother`` and ``retrieval`` where they were asked for.

    Raises:
        SceneError: the scene cannot be opened.
        ConfigError: ``limit`` leaves nothing after the warm-up.
        BackendError: no back end ran.
    """
    if limit <= WARM_UP:
        raise ConfigError(f"limit: expected more than the {WARM_UP} frames of the warm-up, got {limit}")
    config = config if config is not None else LocalizerConfig()
    scene = Scene.load(scene_path)
    found: dict[str, Any] = {
        "scene": str(scene_path),
        "source": str(source.path),
        "method": scene.method,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backends": _by_backend(scene, source, config, limit, progress),
    }
    if smoother_frames:
        found["smoother"] = smoother_benchmark(smoother_frames, config.smoother, progress=progress)
    if index_images:
        # Late: a scene with a network needs none of the structure libraries.
        from localizer_ros.evaluation.retrieval_benchmark import retrieval_benchmark

        found["retrieval"] = retrieval_benchmark(scene_path, source, index_images, progress)
    return {**found, "config": config_to_dict(config), "versions": versions()}


def measure(localizer: FrameLocalizer, source: FrameSource, limit: int) -> dict[str, Any]:
    """Latency of every stage over the first frames of a recording.

    Args:
        localizer: freshly opened.
        source: the frames; reading them is not timed.
        limit: at most this many frames.

    Returns:
        See :func:`bench`, without ``open_s``.

    Raises:
        SourceError: fewer frames than the warm-up needs can be used.
    """
    latencies: list[float] = []
    stages: dict[str, list[float]] = {}
    answers: dict[str, list[float]] = {}
    answered = dropped = 0
    for result, _ in run_localizer(localizer, source, limit=limit):
        output = result.output
        if output is None or result.latency_ms is None:
            dropped += 1
            continue
        latencies.append(result.latency_ms)
        answered += output.estimate is not None
        if len(latencies) > WARM_UP:
            kind = NO_ANSWER if output.absolute is None else output.absolute.source
            answers.setdefault(kind, []).append(result.latency_ms)
            for name, value in output.timings_ms.items():
                stages.setdefault(name, []).append(value)
    warm = latencies[WARM_UP:]
    if not warm:
        raise SourceError(f"{source.path}: expected more than {WARM_UP} usable frames, got {len(latencies)}")
    return {
        "frames": len(latencies),
        "answered": answered,
        "dropped": dropped,
        "latency_ms": {
            "first": max(latencies[:WARM_UP]),
            **percentiles(warm, 50, 90, 99),
            "answers": {
                kind: {"frames": len(values), **percentiles(values, 50, 99)}
                for kind, values in answers.items()
            },
            "stages": {name: percentiles(values, 50, 99) for name, values in stages.items()},
        },
        "throughput_hz": 1e3 * len(warm) / sum(warm),
        "peak_rss_mb": peak_rss_mb(),
    }


def _by_backend(
    scene: Scene, source: FrameSource, config: LocalizerConfig, limit: int, progress: Progress
) -> dict[str, Any]:
    """What :func:`measure` gives for each back end, or why it gives nothing."""
    kinds = _kinds(scene, config)
    results: dict[str, Any] = {}
    for done, kind in enumerate(kinds):
        progress("back ends", done, len(kinds))
        chosen = msgspec.structs.replace(
            config, backend=msgspec.structs.replace(config.backend, kind=kind if kind in BACKENDS else "auto")
        )
        try:
            results[kind] = _in_own_process(scene.path, source, chosen, limit)
        except LocalizerError as error:
            results[kind] = {"error": str(error)}
    progress("back ends", len(kinds), len(kinds))
    if all("error" in result for result in results.values()):
        raise BackendError("; ".join(f"{kind}: {result['error']}" for kind, result in results.items()))
    return results


def _kinds(scene: Scene, config: LocalizerConfig) -> list[str]:
    """Names of the back ends to run; ``default`` for a method that has no network of its own."""
    if not card_path(scene.path / NETWORKS_FOLDER, scene.method).is_file():
        return ["default"]
    if config.backend.kind != "auto":
        return [config.backend.kind]
    return [kind for kind in BACKENDS if importlib.util.find_spec(kind) is not None]


def _in_own_process(
    scene_path: Path, source: FrameSource, config: LocalizerConfig, limit: int
) -> dict[str, Any]:
    # Spawned, not forked: a forked process would inherit this one's memory and its engines' threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_open_and_measure, scene_path, source, config, limit).result()
        except BrokenProcessPool as error:
            raise BackendError(f"back end {config.backend.kind}: its process died") from error


def _open_and_measure(
    scene_path: Path, source: FrameSource, config: LocalizerConfig, limit: int
) -> dict[str, Any]:
    from localizer_ros.localization.localizer import open_localizer

    began = time.perf_counter()
    localizer = open_localizer(scene_path, config)
    open_s = time.perf_counter() - began
    try:
        return {"open_s": open_s, **measure(localizer, source, limit)}
    finally:
        localizer.close()
