"""How long every stage takes and how much memory it needs, for each back end of this machine; the smoother alone.

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
import numpy as np
import psutil

from localizer_ros.core.config.runtime import LocalizerConfig, SmootherConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    BackendError,
    ConfigError,
    FrameRejected,
    LocalizerError,
    PoseEstimate,
    RelativePose,
    SourceError,
)
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.evaluate import FrameLocalizer, OdometryFeed, peak_rss_mb, versions
from localizer_ros.evaluation.metrics import percentiles
from localizer_ros.inference.backend import BACKENDS
from localizer_ros.scene.bundle import Scene

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
    """Time the whole pipeline on a recording, once for each back end that is installed.

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
    kinds = _kinds(scene, config)
    results: dict[str, Any] = {}
    for done, kind in enumerate(kinds):
        progress("back ends", done, len(kinds))
        chosen = msgspec.structs.replace(
            config, backend=msgspec.structs.replace(config.backend, kind=kind if kind in BACKENDS else "auto")
        )
        try:
            results[kind] = _in_own_process(scene_path, source, chosen, limit)
        except LocalizerError as error:
            results[kind] = {"error": str(error)}
    progress("back ends", len(kinds), len(kinds))
    if all("error" in result for result in results.values()):
        raise BackendError("; ".join(f"{kind}: {result['error']}" for kind, result in results.items()))
    found: dict[str, Any] = {
        "scene": str(scene_path),
        "source": str(source.path),
        "method": scene.method,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backends": results,
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
    odometry = OdometryFeed(source)
    latencies: list[float] = []
    stages: dict[str, list[float]] = {}
    answers: dict[str, list[float]] = {}
    answered = dropped = 0
    sequence: str | None = None
    for index, record in enumerate(source.records[:limit]):
        if sequence is not None and record.sequence != sequence:
            localizer.reset()
        sequence = record.sequence
        odometry.feed(localizer, record.stamp_ns)
        try:
            frame = source.read(index)
            began = time.perf_counter()
            output = localizer.process(frame)
        except (FrameRejected, SourceError):
            dropped += 1
            continue
        latencies.append((time.perf_counter() - began) * 1e3)
        answered += output.estimate is not None
        if len(latencies) > WARM_UP:
            kind = NO_ANSWER if output.absolute is None else output.absolute.source
            answers.setdefault(kind, []).append(latencies[-1])
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


def smoother_benchmark(
    frames: int = 100_000,
    config: SmootherConfig | None = None,
    rate_hz: float = 30.0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The smoother alone on a simulated drive: an absolute pose and a motion in every frame.

    Args:
        frames: length of the drive; 100 000 are 56 minutes at 30 Hz.
        config: of the smoother.
        rate_hz: of the simulated camera.
        progress: told every thousand frames.

    Returns:
        ``p50_ms``, ``p99_ms`` and ``max_ms`` of the time per frame, ``cpu_p50_ms`` and ``cpu_p99_ms`` of the
        computing time (which another program on this machine does not lengthen by making us wait),
        ``p99_ms_last_tenth`` (as the first when nothing grows), resident memory ``rss_mb`` at 10, 50 and 100 %,
        ``rebuilds``, and ``median_t_m``, the error of the estimate, beside ``raw_median_t_m`` of what it was
        given.

    Raises:
        ConfigError: gtsam cannot be imported, or too few frames.
    """
    from localizer_ros.smoothing import open_smoother

    if frames < 100:
        raise ConfigError(f"smoother frames: expected at least 100, got {frames}")
    config = config if config is not None else SmootherConfig()
    smoother = open_smoother(config)
    rng = np.random.default_rng(7)
    absolute_sigma = np.repeat([np.radians(3.0), 0.10], 3)
    motion_sigma = np.repeat([np.radians(0.1), 0.005], 3)
    S_absolute, S_motion = np.diag(absolute_sigma**2), np.diag(motion_sigma**2)
    # All memory of the measurement itself is taken (and touched: zeros would not be) here, so that growth is the
    # smoother's.
    times_ms, cpu_ms, errors_m, raw_errors_m = np.full((4, frames), np.nan)
    process = psutil.Process()
    marks = {max(1, frames // 10): "10%", frames // 2: "50%", frames: "100%"}
    rss_mb: dict[str, float] = {}
    # A circle of 10 m radius at 1 m/s, always the same step.
    T_prev_cur = SE3.exp([0.0, 0.1 / rate_hz, 0.0, 0.0, 0.0, 1.0 / rate_hz])
    T_map_cam = SE3.exp([0.3, -0.2, 0.5, 20.0, -10.0, 2.0])
    prev_ns = 0
    for i in range(frames):
        stamp_ns = round((i + 1) * 1e9 / rate_hz)
        noise = rng.normal(size=(2, 6))
        if i:
            # Straight products would leave SO(3) slowly: once around is 1900 frames.
            T_map_cam = SE3.from_matrix((T_map_cam @ T_prev_cur).matrix())
        absolute = PoseEstimate(
            stamp_ns, T_map_cam @ SE3.exp(absolute_sigma * noise[0]), S_absolute, "simulated"
        )
        motion = RelativePose(
            prev_ns, stamp_ns, T_prev_cur @ SE3.exp(motion_sigma * noise[1]), S_motion, "simulated"
        )
        began, cpu_began = time.perf_counter(), time.process_time()
        if i:
            smoother.add_relative(motion)
        smoother.add_absolute(absolute)
        estimate = smoother.estimate()
        cpu_ms[i] = (time.process_time() - cpu_began) * 1e3
        times_ms[i] = (time.perf_counter() - began) * 1e3
        errors_m[i] = np.nan if estimate is None else estimate.T_map_cam.distance_to(T_map_cam)
        raw_errors_m[i] = absolute.T_map_cam.distance_to(T_map_cam)
        prev_ns = stamp_ns
        if i + 1 in marks:
            rss_mb[marks[i + 1]] = round(process.memory_info().rss / 2**20, 2)
        if (i + 1) % 1000 == 0 or i + 1 == frames:
            progress("smoother", i + 1, frames)
    p50, p99 = np.percentile(times_ms, (50, 99))
    cpu_p50, cpu_p99 = np.percentile(cpu_ms, (50, 99))
    return {
        "frames": frames,
        "rate_hz": rate_hz,
        "lag_s": config.lag_s,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(times_ms.max()),
        "cpu_p50_ms": float(cpu_p50),
        "cpu_p99_ms": float(cpu_p99),
        "p99_ms_last_tenth": float(np.percentile(times_ms[-(frames // 10) :], 99)),
        "rss_mb": rss_mb,
        "rebuilds": smoother.rebuilds,
        "median_t_m": float(np.nanmedian(errors_m)),
        "raw_median_t_m": float(np.median(raw_errors_m)),
    }


def _kinds(scene: Scene, config: LocalizerConfig) -> list[str]:
    """Names of the back ends to run; ``default`` for a method that has no network of its own."""
    if not (scene.path / "networks" / f"{scene.method}.json").is_file():
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
    localizer = open_localizer(scene_path, config, source.T_base_cam)
    open_s = time.perf_counter() - began
    try:
        return {"open_s": open_s, **measure(localizer, source, limit)}
    finally:
        localizer.close()
