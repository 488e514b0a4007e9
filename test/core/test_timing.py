"""The stage timer: laps leave no time out, stages add up, parts that others measured keep their place."""

from __future__ import annotations

import pytest

from localizer_ros.core import timing
from localizer_ros.core.timing import StageTimer


class Clock:
    """In place of ``time.perf_counter``: stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_laps_in_a_row_leave_no_time_out(clock: Clock) -> None:
    timer = StageTimer()
    for name, spent_s in (("a", 0.5), ("b", 0.25), ("a", 0.125)):
        clock.now_s += spent_s
        timer.lap(name)
    assert timer.timings_ms() == {"a": 625.0, "b": 250.0}
    assert timer.elapsed_ms() == 875.0


def test_a_lap_of_which_parts_are_known_keeps_the_rest(clock: Clock) -> None:
    timer = StageTimer()
    clock.now_s += 0.5
    timer.lap("front_end", {"network": 300.0, "solve": 100.0})
    clock.now_s += 0.25
    timer.lap("late", {"beside": 900.0})  # more than there was: nothing is left, and nothing below zero
    assert list(timer.timings_ms().items()) == [
        ("network", 300.0),
        ("solve", 100.0),
        ("front_end", 100.0),
        ("beside", 900.0),
        ("late", 0.0),
    ]


def test_a_stage_is_measured_by_itself_also_when_it_fails(clock: Clock) -> None:
    timer = StageTimer()
    clock.now_s += 0.5
    with timer.stage("inner"):
        clock.now_s += 0.25
    with pytest.raises(ValueError), timer.stage("inner"):
        clock.now_s += 0.125
        raise ValueError
    timer.lap("all")
    assert timer.timings_ms() == {"inner": 375.0, "all": 875.0}


def test_stages_of_others_are_added_under_a_prefix(clock: Clock) -> None:
    timer = StageTimer()
    timer.add({"match": 1.0, "solve": 2.0}, "search_")
    timer.add({"match": 4.0}, "search_")
    assert timer.timings_ms() == {"search_match": 5.0, "search_solve": 2.0}


def test_seconds_of_a_build_are_rounded_to_the_hundredth(clock: Clock) -> None:
    timer = StageTimer()
    with timer.stage("features"):
        clock.now_s += 12.3456
    assert timer.timings_s() == {"features": 12.35}
