"""One thread that owns the localizer, and the mailbox in front of it. Knows nothing of ROS.

A queue of frames before a slow network only makes the answer older, so the mailbox holds one frame, of each camera, and
the newest wins. Commands (odometry, resets) are small and all of them count: they wait in order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Owned = TypeVar("Owned")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Taken(Generic[Item, Owned]):
    """What one visit to the mailbox gave.

    Attributes:
        commands: to be run first, in the order they came.
        item: the newest item, or None when there were only commands.
        waited_s: how long the item lay in the mailbox.
    """

    commands: tuple[Callable[[Owned], None], ...]
    item: Item | None
    waited_s: float


class Mailbox(Generic[Item, Owned]):
    """Slots of one for items, where the newest wins, beside a queue of commands. No slot starves another: the item of
    the lowest order is taken first.

    Args:
        clock: seconds of a clock that never goes back.
        max_commands: the oldest commands are dropped beyond this; only a stuck owner lets it come to that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_commands: int = 10_000) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        # The item in each slot, with its order and the time when it came.
        self._items: dict[str, tuple[int, float, Item]] = {}
        self._commands: deque[Callable[[Owned], None]] = deque(maxlen=max_commands)
        self._closed = False

    def put(self, item: Item, slot: str = "", order: int = 0) -> Item | None:
        """Leave an item; returns the older one of its slot that it displaced, or the item itself when closed."""
        with self._changed:
            if self._closed:
                return item
            displaced = self._items.get(slot)
            self._items[slot] = (order, self._clock(), item)
            self._changed.notify()
        return None if displaced is None else displaced[2]

    def command(self, command: Callable[[Owned], None]) -> None:
        """Leave a command for the owner."""
        with self._changed:
            self._commands.append(command)
            self._changed.notify()

    def take(self, timeout_s: float | None = None) -> Taken[Item, Owned] | None:
        """Wait for mail and take the commands and one item; None when closed, or when ``timeout_s`` passed without
        any."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or bool(self._items) or bool(self._commands), timeout_s
            )
            if self._closed or not (self._items or self._commands):
                return None
            commands = tuple(self._commands)
            self._commands.clear()
            if not self._items:
                return Taken(commands, None, 0.0)
            first = min(self._items, key=lambda slot: self._items[slot][0])
            _, arrived_s, item = self._items.pop(first)
            return Taken(commands, item, self._clock() - arrived_s)

    def clear(self) -> int:
        """Throw the waiting items away, and say how many."""
        with self._changed:
            count = len(self._items)
            self._items.clear()
        return count

    def close(self) -> None:
        """Wake the owner for the last time; what still lies in the box is not delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Worker(Generic[Item, Owned]):
    """Creates, uses and closes one object in one thread of its own: GPU contexts belong to a thread.

    Args:
        create: makes the object; may take long, and may raise.
        handle: ``handle(owned, item, waited_s)``.
        close: the object's end.
        on_error: told of exceptions of ``handle`` and of commands. The thread survives them.
        name: of the thread.
    """

    def __init__(
        self,
        create: Callable[[], Owned],
        handle: Callable[[Owned, Item, float], None],
        close: Callable[[Owned], None],
        on_error: Callable[[Exception], None],
        name: str = "localizer",
    ) -> None:
        self._create, self._handle, self._close, self._on_error = create, handle, close, on_error
        self.mailbox: Mailbox[Item, Owned] = Mailbox()
        self._opened = threading.Event()
        self._failure: BaseException | None = None
        self._on_opened: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self, opened: Callable[[], None]) -> None:
        """Start the thread; it calls ``opened`` when the object exists, or could not be made."""
        self._on_opened = opened
        self._thread.start()

    def start(self) -> None:
        """Start the thread, where it has not begun, and wait until the object exists; raises what ``create`` raised."""
        if self._thread.ident is None:
            self._thread.start()
        self._opened.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Close the object and end the thread; False when it did not end in time."""
        self.mailbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            owned = self._create()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._opened.set()
            self._on_opened()
        while (mail := self.mailbox.take()) is not None:
            for command in mail.commands:
                self._guarded(command, owned)
            if mail.item is not None:
                self._guarded(self._handle, owned, mail.item, mail.waited_s)
        self._guarded(self._close, owned)

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self._on_error(error)
