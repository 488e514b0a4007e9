"""Searches beside the frames: their stamps, their schedule, threads, failures, and what the localizer makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from typing import Any

import numpy as np
import pytest

from localizer_ros.core.config.runtime import GateConfig, LocalizerConfig, SmootherConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import LATE_SEARCH, Camera, Frame, LocalizerOutput, PoseEstimate, Status
from localizer_ros.localization.front_end import Observation
from localizer_ros.localization.gate import AnswerOutcome
from localizer_ros.localization.localizer import Localizer
from localizer_ros.localization.map_based.beside import own_thread
from localizer_ros.localization.map_based.late_search import LateSearch
from localizer_ros.localization.map_based.search import SearchResult
from localizer_ros.localization.map_based.search_front_end import SearchFrontEnd
from localizer_ros.smoothing import open_smoother

CAMERA = Camera.pinhole(8, 6, 5.0, 5.0, 3.5, 2.5)
PERIOD_NS = 33_333_333
LATENCY_S = 0.3
LATENCY_NS = 300_000_000
STEP = SE3.exp([0.0, 0.01, 0.0, 0.0, 0.0, 0.03])
START = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
SIGMAS = np.repeat([0.01, 0.02], 3)


def truth(index: int) -> SE3:
    return START @ SE3.exp(STEP.log() * index)


def frame(index: int) -> Frame:
    return Frame(index * PERIOD_NS, np.zeros((6, 8), np.uint8), CAMERA, T_base_cam=SE3.identity())


class Noisy:
    """A global localizer whose answer depends on the frame alone; some frames have none, some make it fail."""

    def __init__(
        self,
        empty: Callable[[int], bool] = lambda index: False,
        fails: Callable[[int], bool] = lambda index: False,
        offset: Callable[[int], SE3] = lambda index: SE3.identity(),
    ) -> None:
        self.empty, self.fails, self.offset = empty, fails, offset
        self.searched: list[int] = []
        self.on_main_thread: list[bool] = []

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        index = round(frame.stamp_ns / PERIOD_NS)
        self.searched.append(index)
        self.on_main_thread.append(current_thread() is main_thread())
        if self.fails(index):
            raise ValueError(f"singular at {index}")
        if self.empty(index):
            return SearchResult(None, "no neighbours")
        noise = np.random.default_rng(index).normal(size=6) * SIGMAS
        T = self.offset(index) @ truth(index) @ SE3.exp(noise)
        return SearchResult(PoseEstimate(frame.stamp_ns, T, np.diag(SIGMAS**2), "test"))


class Waiting:
    """A global localizer that waits until it may go on; its answer is the identity."""

    def __init__(self) -> None:
        self.go = Event()
        self.searched: list[int] = []
        self.ended: list[int] = []

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
        self.searched.append(frame.stamp_ns)
        assert self.go.wait(30.0)
        self.ended.append(frame.stamp_ns)
        return SearchResult(PoseEstimate(frame.stamp_ns, SE3.identity(), np.eye(6), "test"))


class Punctual(Executor):
    """A thread that is always given the time it needs."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = self.pool.submit(fn, *args, **kwargs)
        wait([future])
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def front_end(localizer: Noisy, executor: Executor | None = None) -> Iterator[SearchFrontEnd]:
    opened = SearchFrontEnd(localizer, LateSearch(localizer, LATENCY_S, executor))
    try:
        yield opened
    finally:
        opened.close()


def story(observations: list[Observation]) -> list[tuple[str, list[tuple[int, bytes]]]]:
    """All of some observations that must not differ."""
    return [(o.reason, [(p.stamp_ns, p.T_map_cam.matrix().tobytes()) for p in o.late]) for o in observations]


def shaken_stamps(count: int) -> list[int]:
    return np.cumsum(np.random.default_rng(5).integers(10, 90, count) * 1_000_000).tolist()


def test_late_answers_keep_their_stamp_and_come_with_the_first_frame_that_is_due() -> None:
    stamps = shaken_stamps(300)
    with front_end(Noisy()) as opened:
        began: int | None = None
        delivered = 0
        for before, stamp in zip([0, *stamps], stamps, strict=False):
            blank = Frame(stamp, np.zeros((6, 8), np.uint8), CAMERA)
            observation = opened.observe(blank, None)
            assert observation.absolute is None
            if began is None:
                began = stamp
            elif observation.late:
                (late,) = observation.late
                assert late.stamp_ns == began
                assert before < began + LATENCY_NS <= stamp
                # The next one looks at the newest frame.
                began = stamp
                delivered += 1
            else:
                assert stamp < began + LATENCY_NS
    assert delivered > 20


def test_a_thread_that_is_on_time_gives_the_same_as_no_thread_and_every_run_the_same_again() -> None:
    def run(executor: Executor | None) -> tuple[Noisy, list[Observation]]:
        localizer = Noisy(empty=lambda i: i % 3 == 0, fails=lambda i: i % 7 == 0)
        with front_end(localizer, executor) as opened:
            observations = []
            for index in range(1, 200):
                if index == 100:
                    opened.reset()
                observations.append(opened.observe(frame(index), None))
        return localizer, observations

    alone, expected = run(None)
    assert any(o.late for o in expected) and any("failed" in o.reason for o in expected)
    _, again = run(None)
    threaded, beside = run(Punctual())
    assert story(again) == story(expected) == story(beside)
    assert threaded.searched == alone.searched
    assert all(alone.on_main_thread) and not any(threaded.on_main_thread)


def test_frames_do_not_wait_for_a_slow_search_and_none_queue_up_behind_it() -> None:
    localizer, finished = Waiting(), Event()
    executor = own_thread("search")
    late = LateSearch(localizer, LATENCY_S, executor)
    for index in range(1, 60):
        assert late.collect(index * PERIOD_NS) is None
        late.begin(frame(index), None)
    localizer.go.set()
    executor.submit(finished.set)
    assert finished.wait(30.0)
    # Later than declared: with the next frame, at its own stamp all the same.
    found = late.collect(60 * PERIOD_NS)
    assert found is not None and found.result.answer is not None
    assert found.frame.stamp_ns == found.result.answer.stamp_ns == PERIOD_NS
    late.begin(frame(60), None)
    late.close()
    assert localizer.searched == [PERIOD_NS, 60 * PERIOD_NS]


@pytest.mark.parametrize("executor", [lambda: None, Punctual])
def test_a_reset_drops_the_answer_under_way(executor: Callable[[], Executor | None]) -> None:
    with front_end(Noisy(), executor()) as opened:
        opened.observe(frame(1), None)
        opened.reset()
        observations = [opened.observe(frame(index), None) for index in range(2, 40)]
    stamps = [p.stamp_ns for o in observations for p in o.late]
    assert stamps[0] == 2 * PERIOD_NS


def test_a_reset_drops_an_answer_that_a_thread_is_still_working_on() -> None:
    localizer = Waiting()
    executor = own_thread("search")
    late = LateSearch(localizer, LATENCY_S, executor)
    late.begin(frame(1), None)
    late.reset()
    assert late.collect(2 * PERIOD_NS) is None
    late.begin(frame(2), None)
    localizer.go.set()
    executor.submit(lambda: None).result(30.0)
    assert late.collect(100 * PERIOD_NS) is None
    assert localizer.searched == [PERIOD_NS]
    late.begin(frame(100), None)
    late.close()
    assert localizer.searched == [PERIOD_NS, 100 * PERIOD_NS]
    assert late.collect(200 * PERIOD_NS) is not None


@pytest.mark.parametrize("executor", [lambda: None, Punctual])
def test_a_failure_becomes_a_reason_and_the_next_search_goes_on(
    executor: Callable[[], Executor | None], caplog: pytest.LogCaptureFixture
) -> None:
    with front_end(Noisy(fails=lambda index: index == 1), executor()) as opened:
        observations = [opened.observe(frame(index), None) for index in range(1, 40)]
    said = [o.reason for o in observations if "failed" in o.reason]
    assert said == ["search failed (ValueError: singular at 1); search under way"]
    assert any(o.late for o in observations)
    assert caplog.records[0].exc_info is not None


def test_closing_waits_for_the_thread() -> None:
    localizer = Waiting()

    class Opening(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            localizer.go.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    late = LateSearch(localizer, LATENCY_S, Opening(1))
    late.begin(frame(1), None)
    late.close()
    assert localizer.ended == [PERIOD_NS]


# --- in the localizer, with odometry between the answers ---


def drive(
    localizer: Noisy, count: int, config: LocalizerConfig | None = None, executor: Executor | None = None
) -> list[LocalizerOutput]:
    config = config or LocalizerConfig()
    with front_end(localizer, executor) as opened:
        whole = Localizer(opened, open_smoother(config.smoother), config)
        outputs = []
        for index in range(1, count):
            whole.add_odometry(index * PERIOD_NS, truth(0).inverse() @ truth(index))
            outputs.append(whole.process(frame(index)))
    return outputs


def test_a_drive_with_searches_of_a_third_of_a_second_is_answered_frame_by_frame() -> None:
    outputs = drive(Noisy(), 300)
    first = next(i for i, o in enumerate(outputs) if o.estimate is not None)
    assert (first - 1) * PERIOD_NS < LATENCY_NS <= first * PERIOD_NS
    errors = []
    for index, output in enumerate(outputs[first:], start=first + 1):
        assert output.estimate is not None and output.estimate.stamp_ns == index * PERIOD_NS
        assert output.status in (Status.TRACKING, Status.DEGRADED)
        errors.append(output.estimate.T_map_cam.distance_to(truth(index)))
    # One answer errs by 3.5 cm on average; the window averages those of three seconds.
    assert np.median(errors) < 0.035 and np.max(errors) < 0.10
    assert not any(output.reset or "rejected" in output.reason for output in outputs)


def test_the_same_drive_twice_and_with_a_thread_is_the_same() -> None:
    def numbers(outputs: list[LocalizerOutput]) -> list[bytes]:
        return [o.estimate.T_map_cam.matrix().tobytes() if o.estimate else b"" for o in outputs]

    expected = numbers(drive(Noisy(), 100))
    assert numbers(drive(Noisy(), 100)) == expected
    assert numbers(drive(Noisy(), 100, executor=Punctual())) == expected


def test_late_answers_that_agree_on_another_place_move_it_there() -> None:
    far = SE3.exp([0, 0, 0, 5.0, 0, 0])
    config = LocalizerConfig(gate=GateConfig(agreeing_rejections=3))
    outputs = drive(Noisy(offset=lambda i: far if i > 100 else SE3.identity()), 300, config)
    moved = [i for i, o in enumerate(outputs) if AnswerOutcome.RELOCALIZED.value in o.reason]
    assert len(moved) == 1
    last = outputs[-1].estimate
    assert last is not None and last.T_map_cam.distance_to(far @ truth(299)) < 0.10


def test_what_a_search_took_is_told_with_its_answer_and_is_no_part_of_the_frame() -> None:
    class Slow(Noisy):
        def localize(self, frame: Frame, prior: PoseEstimate | None) -> SearchResult:
            time.sleep(0.02)
            return super().localize(frame, prior)

    outputs = drive(Slow(), 40)
    told = [o for o in outputs if LATE_SEARCH in o.timings_ms]
    assert len(told) == 3
    for output in told:
        assert output.timings_ms[LATE_SEARCH] >= 20.0
        assert list(output.timings_ms)[-1] == "total"


def test_an_answer_later_than_the_window_is_refused_and_said() -> None:
    outputs = drive(Noisy(), 60, LocalizerConfig(smoother=SmootherConfig(lag_s=0.2)))
    assert any(output.estimate is not None for output in outputs)
    assert any(AnswerOutcome.TOO_LATE.value in output.reason for output in outputs)
