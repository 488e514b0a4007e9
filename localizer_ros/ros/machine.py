"""Time and threads as the node meets them. A scenario puts simulated ones in their place, and drives the same node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localizer_ros.ros.worker import Worker

# ``wait(condition, done, timeout_s)``: until ``done()`` or the timeout; the condition is held.
Wait = Callable[[threading.Condition, Callable[[], bool], float], None]


def wait_for(condition: threading.Condition, done: Callable[[], bool], timeout_s: float) -> None:
    """The thread waits."""
    condition.wait_for(done, timeout_s)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the node asks of the machine it runs on.

    Attributes:
        clock: seconds of a clock that never goes back.
        worker: makes the thread that owns the localizer, see ``Worker``.
        wait: how a thread waits for another.
    """

    clock: Callable[[], float] = time.monotonic
    worker: Callable[..., Any] = Worker
    wait: Wait = wait_for


THIS_MACHINE = Machine()
