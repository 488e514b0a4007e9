"""The smoother alone."""

from __future__ import annotations

import pytest

from localizer_ros.core.config.runtime import SmootherConfig
from localizer_ros.core.types import ConfigError
from localizer_ros.evaluation.smoother_benchmark import smoother_benchmark


def test_smoother_benchmark_runs_and_smooths() -> None:
    told: list[int] = []
    values = smoother_benchmark(400, SmootherConfig(), progress=lambda stage, done, total: told.append(done))
    assert told[-1] == values["frames"] == 400
    assert set(values["rss_mb"]) == {"10%", "50%", "100%"}
    assert values["rebuilds"] == 0
    # Good odometry and a second of absolute poses: several times better than each of them.
    assert values["median_t_m"] < 0.6 * values["raw_median_t_m"]
    with pytest.raises(ConfigError, match="at least"):
        smoother_benchmark(10)
