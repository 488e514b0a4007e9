"""Time in which nothing happens by itself: every event has its moment, and the node's threads take turns.

Two threads are simulated. The executor's delivers messages and runs timers, one after the other, in no time. The
worker's takes what lies in its mailbox and is busy for as long as a frame is said to take; meanwhile the executor's
goes on. So frames are overtaken, wait and come too late as on a machine, but the same way every time.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

from localizer_ros.ros.worker import Mailbox

NS = 1_000_000_000


class Simulation:
    """A queue of events.

    Args:
        begin_ns: time at which it begins.
    """

    def __init__(self, begin_ns: int = 0) -> None:
        self.now_ns = begin_ns
        self.worker: SteppedWorker | None = None
        self._events: list[tuple[int, int, Callable[[], object], bool]] = []
        self._count = 0
        self.on_time: Callable[[int], None] = lambda now_ns: None
        """Told of the time before every event."""

    def clock(self) -> float:
        """Seconds, for the node."""
        # Some way from zero, as on a machine that has been on for a while.
        return 1000.0 + self.now_ns / NS

    def at(self, at_ns: int, event: Callable[[], object], alone: bool = False) -> None:
        """Do something at a time; ``alone`` waits for the worker to be idle, as what waits for it does on a machine."""
        heapq.heappush(self._events, (at_ns, self._count, event, alone))
        self._count += 1

    def run(self, until_ns: int) -> None:
        """Let everything happen that is due until then."""
        while self._step(until_ns):
            self._let_worker()
        self.now_ns = max(self.now_ns, until_ns)

    def sleep(self, seconds: float) -> None:
        """The worker is busy; the executor goes on."""
        until_ns = self.now_ns + round(seconds * NS)
        while self._step(until_ns):
            pass
        self.now_ns = until_ns

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout_s: float) -> None:
        """The worker waits for something that the executor brings."""
        until_ns = self.now_ns + round(timeout_s * NS)
        while not done():
            if not self._step(until_ns):
                self.now_ns = until_ns
                return

    def _step(self, until_ns: int) -> bool:
        busy = self.worker is not None and self.worker.busy
        held = []
        while self._events and self._events[0][0] <= until_ns:
            event = heapq.heappop(self._events)
            if busy and event[3]:
                # It and all that the executor would do after it come when the worker is idle.
                held.append(event)
                continue
            for waiting in held:
                heapq.heappush(self._events, waiting)
            self.now_ns = max(self.now_ns, event[0])
            self.on_time(self.now_ns)
            event[2]()
            return True
        for waiting in held:
            heapq.heappush(self._events, waiting)
        return False

    def _let_worker(self) -> None:
        if self.worker is not None:
            self.worker.step()


class SteppedWorker:
    """A ``Worker`` without a thread: it works when it is told to.

    Args:
        simulation: which tells it.
        create: makes the object, see ``Worker``.
        handle: see ``Worker``.
        close: see ``Worker``.
        on_error: see ``Worker``.
    """

    def __init__(
        self,
        simulation: Simulation,
        create: Callable[[], Any],
        handle: Callable[[Any, Any, float], None],
        close: Callable[[Any], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._simulation = simulation
        self._create, self._handle, self._close, self._on_error = create, handle, close, on_error
        self.mailbox = _Mailbox(self)
        self.busy = False
        self._owned: Any = None
        self._failure: Exception | None = None

    def begin(self, opened: Callable[[], object]) -> None:
        """Make the object, in no time."""
        self._make()
        opened()

    def start(self) -> None:
        """Make the object where that was not done; raises what that raised."""
        if self._owned is None and self._failure is None:
            self._make()
        if self._failure is not None:
            raise self._failure
        self._simulation.worker = self

    def _make(self) -> None:
        try:
            self._owned = self._create()
        except Exception as error:
            self._failure = error

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Close the object; always in time."""
        self.mailbox.close()
        self._simulation.worker = None
        if self._owned is not None:
            self._guarded(self._close, self._owned)
            self._owned = None
        return True

    def step(self) -> None:
        """Take what there is, until there is nothing; does nothing while it is at it."""
        if self.busy or self._owned is None:
            return
        self.busy = True
        try:
            while (mail := self.mailbox.take(0.0)) is not None:
                for command in mail.commands:
                    self._guarded(command, self._owned)
                if mail.item is not None:
                    self._guarded(self._handle, self._owned, mail.item, mail.waited_s)
        finally:
            self.busy = False

    def clock(self) -> float:
        """Of the simulation."""
        return self._simulation.clock()

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self._on_error(error)


class _Mailbox(Mailbox[Any, Any]):
    """A mailbox whose owner runs a command as soon as he is idle: who waits for that would wait for ever."""

    def __init__(self, worker: SteppedWorker) -> None:
        super().__init__(worker.clock)
        self._worker = worker

    def command(self, command: Callable[[Any], None]) -> None:
        """See ``Mailbox``."""
        super().command(command)
        self._worker.step()
