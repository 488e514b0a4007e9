"""Latency of every stage: what is counted and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_runs import NoisyLocalizer, NoisySource

from localizer_ros.core.types import ConfigError, SourceError
from localizer_ros.evaluation.benchmark import NO_ANSWER, WARM_UP, bench, measure


def test_measure_leaves_the_warm_up_out(tmp_path: Path) -> None:
    values: dict[str, Any] = measure(NoisyLocalizer(), NoisySource(broken=20), limit=30)
    assert (values["frames"], values["answered"], values["dropped"]) == (28, 28, 2)
    assert values["latency_ms"]["stages"]["network"] == {"p50": 5.0, "p99": 5.0}
    assert values["throughput_hz"] > 0.0 and values["peak_rss_mb"] > 10.0
    (only,) = values["latency_ms"]["answers"].items()
    assert only[0] == "posenet" and only[1]["frames"] == 28 - WARM_UP and only[1]["p50"] <= only[1]["p99"]
    nothing = measure(NoisyLocalizer(answers=False), NoisySource(), limit=30)["latency_ms"]["answers"]
    assert list(nothing) == [NO_ANSWER]
    with pytest.raises(SourceError, match="usable frames"):
        measure(NoisyLocalizer(), NoisySource(), limit=WARM_UP)
    with pytest.raises(ConfigError, match="limit"):
        bench(tmp_path, NoisySource(), limit=WARM_UP)
