"""The one loop: what it feeds the localizer and in which order, what it drops, where it resets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_runs import PERIOD_NS, FakeLocalizer, FakeSource

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import ConfigError, Frame, LocalizerOutput
from localizer_ros.evaluation.run_localizer import UNREADABLE, FrameResult, run_localizer


def run(source: FakeSource | None = None, **options: Any) -> tuple[list[FrameResult], FakeLocalizer]:
    localizer = FakeLocalizer()
    return [result for result, _ in run_localizer(localizer, source or FakeSource(), **options)], localizer


def test_sequences_are_not_bridged_and_the_first_is_not_reset() -> None:
    _, localizer = run()
    names = [name for name, _ in localizer.calls]
    assert names.count("process") == 20
    assert names.count("reset") == 1
    assert names.index("reset") == 10


def test_a_replay_bridges_sequences() -> None:
    _, localizer = run(bridge_sequences=True)
    assert [name for name, _ in localizer.calls] == ["process"] * 20


def test_odometry_is_fed_in_time_once_and_never_from_the_future() -> None:
    stamps = [int((10 + 0.5 * i) * PERIOD_NS) for i in range(-60, 60)]
    odometry = Trajectory.from_items((s, SE3.identity()) for s in stamps)
    _, localizer = run(FakeSource(odometry=odometry), limit=10)
    newest_frame = -1
    fed = []
    for name, stamp in localizer.calls:
        if name == "process":
            assert fed[-1] <= stamp and fed[-1] + PERIOD_NS > stamp
            newest_frame = stamp
        elif name == "odometry":
            assert stamp > newest_frame
            fed.append(stamp)
    assert fed == sorted(set(fed))
    # What lies more than a second before the first frame is of no use.
    assert fed[0] >= 10 * PERIOD_NS - 1_000_000_000


def test_dropped_frames_are_results_with_a_reason() -> None:
    results, localizer = run(FakeSource(broken=frozenset({0})))
    assert [r.index for r in results] == list(range(20))
    unreadable, rejected = results[0], results[3]
    assert (unreadable.output, unreadable.dropped, unreadable.latency_ms) == (None, UNREADABLE, None)
    assert "truncated" in unreadable.message
    assert (rejected.output, rejected.dropped) == (None, "stamp_repeats")
    assert [name for name, _ in localizer.calls].count("process") == 19
    for result in results[5:]:
        assert result.output is not None and result.latency_ms is not None and result.latency_ms > 0.0
        assert result.output.stamp_ns == result.record.stamp_ns


def test_the_frame_comes_with_its_result_also_when_it_was_rejected() -> None:
    source = FakeSource(broken=frozenset({0}))
    frames = [frame for _, frame in run_localizer(FakeLocalizer(), source, limit=5)]
    assert frames[0] is None
    assert [int(f.image[0, 0, 0]) for f in frames[1:] if f is not None] == [1, 2, 3, 4]


def test_limit_and_progress_of_frames_that_were_consumed() -> None:
    told: list[tuple[str, int, int]] = []
    results: Iterator[Any] = run_localizer(
        FakeLocalizer(), FakeSource(), limit=7, stage="eval", progress=lambda *values: told.append(values)
    )
    next(results)
    assert told == []
    assert len(list(results)) == 6
    assert told == [("eval", i, 7) for i in range(1, 8)]
    assert len(run(limit=10_000)[0]) == 20
    with pytest.raises(ConfigError, match="limit"):
        run(limit=0)


def test_latency_leaves_out_reading_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = 0.0

    class SlowSource(FakeSource):
        def read(self, index: int) -> Frame:
            nonlocal clock_s
            clock_s += 1.0
            return super().read(index)

    class SlowLocalizer(FakeLocalizer):
        def process(self, frame: Frame) -> LocalizerOutput:
            nonlocal clock_s
            clock_s += 0.020
            return super().process(frame)

    monkeypatch.setattr(time, "perf_counter", lambda: clock_s)
    (first, *_) = [result for result, _ in run_localizer(SlowLocalizer(), SlowSource(), limit=3)]
    assert first.latency_ms == pytest.approx(20.0)
