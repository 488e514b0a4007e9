"""A command run in a process of its own, which tells each step it takes; importable by that process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from multiprocessing.connection import Connection

from localizer_ros.cli import console
from localizer_ros.cli.main import app


def run_command(arguments: list[str], moments: Connection) -> None:
    """Run a command, sending the name of the stage for every step of its progress."""

    @contextlib.contextmanager
    def told() -> Iterator[object]:
        yield lambda stage, done, total: moments.send(stage)

    console.progress_bar = told
    app(arguments)
