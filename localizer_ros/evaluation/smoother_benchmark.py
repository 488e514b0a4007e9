"""The smoother alone on a long simulated run: time and memory of every frame, and whether either grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil

from localizer_ros.core.config.runtime import SmootherConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, ConfigError, PoseEstimate, RelativePose
from localizer_ros.smoothing import open_smoother

_SEED = 7
# Of a network that is good to 3 degrees and 10 cm, and of wheels: rotation (rad), then translation (m).
_ABSOLUTE_SIGMA = np.repeat([np.radians(3.0), 0.10], 3)
_MOTION_SIGMA = np.repeat([np.radians(0.1), 0.005], 3)
_FEWEST = 100
_TELL_EVERY = 1000


def smoother_benchmark(
    frames: int = 100_000,
    config: SmootherConfig | None = None,
    rate_hz: float = 30.0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Figures of the smoother alone, given an absolute pose and a motion in every frame.

    Args:
        frames: length of the run; 100 000 are 56 minutes at 30 Hz.
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
    if frames < _FEWEST:
        raise ConfigError(f"smoother frames: expected at least {_FEWEST}, got {frames}")
    config = config if config is not None else SmootherConfig()
    smoother = open_smoother(config)
    # All memory of the measurement itself is taken (and touched: zeros would not be) here, so that growth is the
    # smoother's.
    times_ms, cpu_ms, errors_m, raw_errors_m = np.full((4, frames), np.nan)
    process = psutil.Process()
    marks = {max(1, frames // 10): "10%", frames // 2: "50%", frames: "100%"}
    rss_mb: dict[str, float] = {}
    for i, (T_map_cam, absolute, motion) in enumerate(_simulated(frames, rate_hz)):
        began, cpu_began = time.perf_counter(), time.process_time()
        if motion is not None:
            smoother.add_relative(motion)
        smoother.add_absolute(absolute)
        estimate = smoother.estimate()
        cpu_ms[i] = (time.process_time() - cpu_began) * 1e3
        times_ms[i] = (time.perf_counter() - began) * 1e3
        errors_m[i] = np.nan if estimate is None else estimate.T_map_cam.distance_to(T_map_cam)
        raw_errors_m[i] = absolute.T_map_cam.distance_to(T_map_cam)
        if i + 1 in marks:
            rss_mb[marks[i + 1]] = round(process.memory_info().rss / 2**20, 2)
        if (i + 1) % _TELL_EVERY == 0 or i + 1 == frames:
            progress("smoother", i + 1, frames)
    return {
        "frames": frames,
        "rate_hz": rate_hz,
        "lag_s": config.lag_s,
        **_times(times_ms, cpu_ms),
        "rss_mb": rss_mb,
        "rebuilds": smoother.rebuilds,
        "median_t_m": float(np.nanmedian(errors_m)),
        "raw_median_t_m": float(np.median(raw_errors_m)),
    }


def _simulated(frames: int, rate_hz: float) -> Iterator[tuple[SE3, PoseEstimate, RelativePose | None]]:
    """The true pose, a noisy absolute pose and a noisy motion since the frame before, of every frame."""
    rng = np.random.default_rng(_SEED)
    S_absolute, S_motion = np.diag(_ABSOLUTE_SIGMA**2), np.diag(_MOTION_SIGMA**2)
    # A circle of 10 m radius at 1 m/s, always the same step.
    T_prev_cur = SE3.exp([0.0, 0.1 / rate_hz, 0.0, 0.0, 0.0, 1.0 / rate_hz])
    T_map_cam = SE3.exp([0.3, -0.2, 0.5, 20.0, -10.0, 2.0])
    prev_ns: int | None = None
    for i in range(frames):
        stamp_ns = round((i + 1) * 1e9 / rate_hz)
        noise = rng.normal(size=(2, 6))
        motion: RelativePose | None = None
        if prev_ns is not None:
            # Straight products would leave SO(3) slowly: once around is 1900 frames.
            T_map_cam = SE3.from_matrix((T_map_cam @ T_prev_cur).matrix())
            T_measured = T_prev_cur @ SE3.exp(_MOTION_SIGMA * noise[1])
            motion = RelativePose(prev_ns, stamp_ns, T_measured, S_motion, "simulated")
        T_measured = T_map_cam @ SE3.exp(_ABSOLUTE_SIGMA * noise[0])
        yield T_map_cam, PoseEstimate(stamp_ns, T_measured, S_absolute, "simulated"), motion
        prev_ns = stamp_ns


def _times(times_ms: Array, cpu_ms: Array) -> dict[str, float]:
    p50, p99 = np.percentile(times_ms, (50, 99))
    cpu_p50, cpu_p99 = np.percentile(cpu_ms, (50, 99))
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(times_ms.max()),
        "cpu_p50_ms": float(cpu_p50),
        "cpu_p99_ms": float(cpu_p99),
        "p99_ms_last_tenth": float(np.percentile(times_ms[-(len(times_ms) // 10) :], 99)),
    }
