"""The mailbox, where the newest wins, and the thread behind it."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localizer_ros.ros.worker import Mailbox, Worker


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
    waits = put > 0 and put - 1 not in taken
    assert mailbox.clear() == waits and mailbox.clear() == 0
    assert sorted([*taken, *displaced, *([put - 1] if waits else [])]) == list(range(put))


@given(st.lists(st.sampled_from(["front", "rear", "take"]), max_size=60))
def test_each_slot_keeps_its_newest_and_the_lowest_order_comes_first(actions: list[str]) -> None:
    mailbox: Mailbox[int, None] = Mailbox()
    waiting: dict[str, int] = {}
    for order, action in enumerate(actions):
        if action != "take":
            assert mailbox.put(order, action, order) == waiting.get(action)
            waiting[action] = order
            continue
        mail = mailbox.take(timeout_s=0.0)
        if not waiting:
            assert mail is None
            continue
        first = min(waiting, key=lambda slot: waiting[slot])
        assert mail is not None and mail.item == waiting.pop(first)
    assert mailbox.clear() == len(waiting)


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
