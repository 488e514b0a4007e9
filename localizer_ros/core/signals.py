"""Signals stay the program's own, whatever a library does when it is imported."""

from __future__ import annotations

import signal
import threading


def take_back_sigterm() -> None:
    """Install Python's handler of SIGTERM again: pycolmap brings one that prints a stack trace in its place."""
    handler = signal.getsignal(signal.SIGTERM)
    # Where Python has none, ROS may have one of its own.
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
