"""Wall time of the stages of one computation, in milliseconds and in the order in which they began."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageTimer:
    """Adds up how long each stage of a frame, a search or a build took; made where the first stage begins.

    ``lap`` gives a stage all time since the lap before it, so that laps in a row leave no time out. ``stage`` measures
    a block by itself. Stages of the same name add up.
    """

    def __init__(self) -> None:
        self._began_s = self._lap_s = time.perf_counter()
        self._spent_ms: dict[str, float] = {}

    def lap(self, name: str, parts_ms: Mapping[str, float] | None = None) -> None:
        """Give the time since the last lap, or since this timer was made, to a stage.

        Args:
            name: the stage.
            parts_ms: stages within that time which somebody else has measured: they are listed before ``name``, which
                gets what they leave over.
        """
        now_s = time.perf_counter()
        left_ms = (now_s - self._lap_s) * 1e3
        if parts_ms:
            self.add(parts_ms)
            left_ms = max(0.0, left_ms - sum(parts_ms.values()))
        self.add({name: left_ms})
        self._lap_s = now_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as a stage, also when it is left by an exception; laps do not notice."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: (time.perf_counter() - began_s) * 1e3})

    def add(self, timings_ms: Mapping[str, float], prefix: str = "") -> None:
        """Add stages that somebody else has measured, each name with ``prefix`` before it."""
        for name, spent_ms in timings_ms.items():
            key = prefix + name
            self._spent_ms[key] = self._spent_ms.get(key, 0.0) + spent_ms

    def timings_ms(self) -> dict[str, float]:
        """Milliseconds of each stage so far, in the order in which they were first named; a copy."""
        return dict(self._spent_ms)

    def timings_s(self) -> dict[str, float]:
        """Seconds of each stage so far, to the hundredth, for reports of builds."""
        return {name: round(spent_ms / 1e3, 2) for name, spent_ms in self._spent_ms.items()}

    def elapsed_ms(self) -> float:
        """Milliseconds since this timer was made."""
        return (time.perf_counter() - self._began_s) * 1e3
