"""The parts of the node that know nothing of ROS: mailbox, worker, odometry gate, transforms, health."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.transform_tree import TransformError, TransformTree
from localizer_ros.core.types import LATE_SEARCH, LocalizerOutput, PoseEstimate, Status
from localizer_ros.ros.dds_profile import PROFILE_VARIABLE, use_shared_memory_profile
from localizer_ros.ros.health import Health
from localizer_ros.ros.odometry_buffer import OdometryGate
from localizer_ros.ros.worker import Mailbox, Worker

MS = 1_000_000


# --- mailbox and worker ---


@given(st.lists(st.sampled_from(["put", "take"]), max_size=60))
def test_mailbox_gives_the_newest_and_accounts_for_every_item(actions: list[str]) -> None:
    mailbox: Mailbox[int, None] = Mailbox()
    put, taken, displaced = 0, [], []
    for action in actions:
        if action == "put":
            old = mailbox.put(put)
            if old is not None:
                displaced.append(old)
            put += 1
        else:
            mail = mailbox.take(timeout_s=0.0)
            if mail is not None:
                assert mail.item == put - 1, "not the newest"
                taken.append(mail.item)
    left = mailbox.clear()
    assert sorted([*taken, *displaced, *([] if left is None else [left])]) == list(range(put))


def test_mailbox_keeps_commands_in_order_and_before_the_item() -> None:
    mailbox: Mailbox[str, list[int]] = Mailbox()
    for number in range(5):
        mailbox.command(lambda seen, number=number: seen.append(number))
    mailbox.put("frame")
    mail = mailbox.take()
    assert mail is not None and mail.item == "frame"
    seen: list[int] = []
    for command in mail.commands:
        command(seen)
    assert seen == [0, 1, 2, 3, 4]


def test_mailbox_tells_how_long_an_item_waited() -> None:
    now = [10.0]
    mailbox: Mailbox[str, None] = Mailbox(clock=lambda: now[0])
    mailbox.put("old")
    now[0] = 10.5
    mailbox.put("new")
    now[0] = 10.75
    mail = mailbox.take()
    assert mail is not None and mail.waited_s == 0.25


def test_closed_mailbox_returns_what_is_put_and_wakes_the_owner() -> None:
    mailbox: Mailbox[str, None] = Mailbox()
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(mailbox.take()))
    thread.start()
    mailbox.close()
    thread.join(5.0)
    assert result == [None]
    assert mailbox.put("late") == "late"


class Owned:
    def __init__(self) -> None:
        self.threads = {threading.get_ident()}
        self.items: list[object] = []
        self.closed = threading.Event()


def worker_of(
    owned: list[Owned],
    errors: list[Exception],
    in_work: threading.Event | None = None,
    gate: threading.Event | None = None,
) -> Worker[object, Owned]:
    def create() -> Owned:
        owned.append(Owned())
        return owned[0]

    def handle(machine: Owned, item: object, waited_s: float) -> None:
        machine.threads.add(threading.get_ident())
        if in_work is not None:
            in_work.set()
        if gate is not None:
            gate.wait(5.0)
        if item == "bad":
            raise ValueError("bad item")
        machine.items.append(item)

    def close(machine: Owned) -> None:
        machine.threads.add(threading.get_ident())
        machine.closed.set()

    return Worker(create, handle, close, errors.append)


def test_worker_creates_uses_and_closes_in_one_thread_of_its_own() -> None:
    owned: list[Owned] = []
    worker = worker_of(owned, [])
    worker.start()
    worker.mailbox.put("item")
    while not owned[0].items:
        time.sleep(0.001)
    assert worker.stop()
    assert owned[0].closed.is_set()
    assert len(owned[0].threads) == 1 and threading.get_ident() not in owned[0].threads


def test_worker_survives_errors_and_reports_them() -> None:
    owned: list[Owned] = []
    errors: list[Exception] = []
    worker = worker_of(owned, errors)
    worker.start()
    for item, done in (("bad", lambda: errors), ("good", lambda: owned[0].items)):
        worker.mailbox.put(item)
        while not done():
            time.sleep(0.001)
    worker.stop()
    assert [str(error) for error in errors] == ["bad item"]
    assert owned[0].items == ["good"]


def test_worker_raises_what_creation_raised() -> None:
    def create() -> None:
        raise RuntimeError("no such scene")

    worker: Worker[object, None] = Worker(create, lambda *_: None, lambda _: None, lambda _: None)
    with pytest.raises(RuntimeError, match="no such scene"):
        worker.start()
    assert worker.stop()


def test_while_the_worker_is_busy_only_the_newest_waits() -> None:
    owned: list[Owned] = []
    in_work, gate = threading.Event(), threading.Event()
    worker = worker_of(owned, [], in_work, gate)
    worker.start()
    displaced = []
    for item in range(1, 8):
        old = worker.mailbox.put(item)
        if old is not None:
            displaced.append(old)
        elif item == 1:
            # The first is in work before the rest come.
            assert in_work.wait(5.0)
    gate.set()
    while len(owned[0].items) < 2:
        time.sleep(0.001)
    worker.stop()
    assert owned[0].items == [1, 7]
    assert displaced == [2, 3, 4, 5, 6]


# --- odometry gate ---


def test_gate_releases_up_to_the_stamp_and_each_sample_once() -> None:
    gate: OdometryGate[int] = OdometryGate()
    for stamp in range(0, 100, 10):
        gate.add(stamp * MS, stamp)
    assert [s for _, s in gate.release(35 * MS, 0.0)] == [0, 10, 20, 30]
    assert [s for _, s in gate.release(50 * MS, 0.0)] == [40, 50]
    assert gate.release(50 * MS, 0.0) == []


def test_gate_waits_for_a_sample_that_is_due_but_not_for_one_that_is_not() -> None:
    gate: OdometryGate[int] = OdometryGate()
    gate.add(0, 0)
    gate.add(20 * MS, 20)
    began = time.monotonic()
    assert [s for _, s in gate.release(39 * MS, 5.0)] == [0, 20]
    assert time.monotonic() - began < 1.0, "waited for a sample that lies after the frame"
    timer = threading.Timer(0.02, gate.add, (40 * MS, 40))
    timer.start()
    assert [s for _, s in gate.release(41 * MS, 5.0)] == [40]
    timer.join()


def test_gate_does_not_wait_for_a_stream_that_ended() -> None:
    gate: OdometryGate[int] = OdometryGate()
    gate.add(0, 0)
    gate.add(20 * MS, 20)
    began = time.monotonic()
    gate.release(1000 * MS, 5.0)
    assert time.monotonic() - began < 1.0


def test_gate_starts_over_when_time_goes_back() -> None:
    gate: OdometryGate[str] = OdometryGate()
    gate.add(1000 * MS, "first round")
    gate.add(1020 * MS, "first round")
    gate.add(10 * MS, "second round")
    assert gate.release(2000 * MS, 0.0) == [(10 * MS, "second round")]


# --- transforms ---


def random_pose(rng: np.random.Generator) -> SE3:
    return SE3.exp(np.concatenate([rng.normal(0.0, 1.0, 3), rng.normal(0.0, 3.0, 3)]))


def test_lookup_composes_up_and_down_the_tree(rng: np.random.Generator) -> None:
    tree = TransformTree()
    T_base_mast, T_mast_cam, T_base_laser = (random_pose(rng) for _ in range(3))
    tree.set("base", "mast", T_base_mast, None)
    tree.set("mast", "cam", T_mast_cam, None)
    tree.set("base", "laser", T_base_laser, None)
    found = tree.lookup("laser", "cam")
    expected = T_base_laser.inverse() @ T_base_mast @ T_mast_cam
    # Products of a few well-scaled doubles: rounding only.
    np.testing.assert_allclose(found.matrix(), expected.matrix(), atol=1e-12)
    back = tree.lookup("cam", "laser")
    np.testing.assert_allclose((found @ back).matrix(), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(tree.lookup("cam", "cam").matrix(), np.eye(4))


def test_moving_edges_are_interpolated_and_never_extrapolated(rng: np.random.Generator) -> None:
    tree = TransformTree()
    first, second = random_pose(rng), random_pose(rng)
    tree.set("odom", "base", first, 1000 * MS)
    tree.set("odom", "base", second, 1100 * MS)
    np.testing.assert_allclose(tree.lookup("odom", "base", 1000 * MS).matrix(), first.matrix())
    half = tree.lookup("odom", "base", 1050 * MS)
    np.testing.assert_allclose(half.matrix(), interpolate(first, second, 0.5).matrix(), atol=1e-12)
    for stamp in (999 * MS, 1101 * MS):
        with pytest.raises(TransformError, match="not known as"):
            tree.lookup("odom", "base", stamp)
    with pytest.raises(TransformError, match="moves"):
        tree.lookup("odom", "base")


def test_unconnected_frames_are_an_error_that_names_what_is_known() -> None:
    tree = TransformTree()
    with pytest.raises(TransformError, match="known frames: none"):
        tree.lookup("base", "cam")
    tree.set("base", "laser", SE3.identity(), None)
    with pytest.raises(TransformError, match=r"'base' and 'cam'.*base, laser"):
        tree.lookup("base", "cam")


def test_a_loop_in_the_tree_ends() -> None:
    tree = TransformTree()
    tree.set("a", "b", SE3.identity(), None)
    tree.set("b", "a", SE3.identity(), None)
    tree.lookup("a", "b")
    with pytest.raises(TransformError):
        tree.lookup("a", "c")


def test_history_is_bounded_and_restarts_when_time_goes_back() -> None:
    tree = TransformTree(history_s=1.0)
    for index in range(1000):
        tree.set("odom", "base", SE3.identity(), index * 10 * MS)
    assert len(tree._edges["base"].stamps_ns) <= 101
    tree.set("odom", "base", SE3.identity(), 5 * MS)
    assert tree._edges["base"].stamps_ns == [5 * MS]


@settings(max_examples=50)
@given(st.permutations(list(range(12))))
def test_history_is_sorted_whatever_the_order_of_arrival(order: list[int]) -> None:
    tree = TransformTree()
    for index in order:
        tree.set("odom", "base", SE3(np.eye(3), np.array([float(index), 0.0, 0.0])), index * 10 * MS)
    for index in range(12):
        assert tree.lookup("odom", "base", index * 10 * MS).t[0] == index


# --- health ---


def output(status: Status, reason: str = "", answered: bool = True) -> LocalizerOutput:
    estimate = PoseEstimate(1, SE3.identity(), np.eye(6), "fake") if answered else None
    return LocalizerOutput(1, status, estimate, None, None, reason, {"network": 5.0, "total": 6.0})


def test_health_tells_what_is_wrong_and_what_would_help() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])

    def message(publishers: int = 1, active: bool = True, paused: bool = False) -> tuple[str, str]:
        diagnosis = health.diagnose(active, paused, publishers, "/image")
        return diagnosis.level, diagnosis.message

    now[0] = 3.0
    assert message(publishers=0) == (
        "STALE",
        "no image yet; nobody publishes /image with a QoS that fits: check the remapping and the QoS",
    )
    health.frame_received()
    health.frame_dropped("no_camera_info", "nothing received on /camera_info")
    level, text = message()
    assert level == "ERROR" and "no_camera_info" in text and "publish sensor_msgs/CameraInfo" in text
    now[0] = 10.0
    health.frame_received()
    assert health.frame_processed(output(Status.TRACKING), 0.001)
    assert not health.frame_processed(output(Status.TRACKING), 0.001)
    assert message() == ("OK", "TRACKING")
    assert health.frame_processed(output(Status.LOST, "no absolute pose for 2.1 s", answered=False), 0.0)
    level, text = message()
    assert level == "ERROR" and text.startswith("LOST: no absolute pose for 2.1 s; bring the camera")
    now[0] = 20.0
    assert message(publishers=0)[1].startswith("no image for 10.0 s; nobody publishes")
    assert message(active=False)[1].startswith("inactive")
    assert message(paused=True)[1].startswith("paused")


def test_health_accounts_for_every_frame() -> None:
    health = Health()
    for kind in ("encoding", "encoding", "superseded"):
        health.frame_received()
        health.frame_dropped(kind, "why")
    health.frame_received()
    health.frame_processed(output(Status.TRACKING), 0.002)
    values = health.diagnose(True, False, 1, "/image").values
    assert values["frames received"] == "4"
    assert values["frames processed"] == values["frames answered"] == "1"
    assert values["frames dropped"] == "3"
    assert values["dropped encoding"] == "2" and values["dropped superseded"] == "1"
    assert values["stage network p50 ms"] == "5.00"


def test_health_tells_of_a_declared_search_latency_that_is_not_kept() -> None:
    health = Health(search_latency_s=0.3)

    def searched(*took_ms: float) -> str | None:
        for each in took_ms:
            timings = {"front_end": 1.0, LATE_SEARCH: each, "total": 2.0}
            health.frame_processed(replace(output(Status.TRACKING), timings_ms=timings), 0.0)
        return health.diagnose(True, False, 1, "/image").values.get("search latency")

    assert searched(900.0, 900.0) is None  # two say nothing
    assert searched(*[200.0] * 20) is None  # now and then is no matter
    said = searched(*[400.0] * 10)
    assert said == (
        "12 of the last 32 searches took longer than search.latency_s = 0.3 s and came late: declare 0.62 s"
    )
    assert Health().diagnose(True, False, 1, "/image").values.get("search latency") is None


# --- transport ---


def test_the_profile_is_named_unless_the_user_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "/mine.xml")
    assert use_shared_memory_profile() == "/mine.xml"
    monkeypatch.delenv(PROFILE_VARIABLE)
    found = use_shared_memory_profile()
    assert Path(found).name == "fastdds.xml" and Path(found).is_file()
    assert os.environ[PROFILE_VARIABLE] == found
