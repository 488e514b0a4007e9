"""How long work tells how far it is: the library calls, the command line draws."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``; total 0 when it is not known."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
