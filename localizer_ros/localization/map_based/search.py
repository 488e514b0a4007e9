"""What the global localizers of a structure scene share."""

from __future__ import annotations

import time

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.scene.map_scene import MapScene


class StructureLocalizer:
    """Base of ``GlobalLocalizer`` implementations on a structure scene.

    Args:
        scene: map and index.
        config: thresholds.

    Attributes:
        reason: why the last frame had no answer; empty when it had one.
        timings_ms: of the last frame.
    """

    def __init__(self, scene: MapScene, config: SearchConfig) -> None:
        self._scene, self._config = scene, config
        self.reason = ""
        self.timings_ms: dict[str, float] = {}

    def _lap(self, name: str, started: float) -> float:
        """Add the time since ``started`` (``time.perf_counter``) to a stage; returns now."""
        now = time.perf_counter()
        self.timings_ms[name] = self.timings_ms.get(name, 0.0) + (now - started) * 1e3
        return now
