"""Runs the commands of a page of the documentation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from documents import REPOSITORY, Block, blocks

RUN = ("sh", "python")


class Workspace:
    """A folder in which the blocks of pages are run one after the other, as somebody who reads them would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = folder / ".bin"
        tools.mkdir()
        for name, module in (("localizer", "-m localizer_ros.cli.main"), ("python", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            (tools / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }
        self._background: list[tuple[Block, subprocess.Popen[bytes], Path]] = []

    def run(self, block: Block) -> None:
        """Run a block; one marked `background` goes on until :meth:`end`, once it has printed what it should."""
        assert set(block.markers) <= {"background", "prints", "needs"}, f"{block.place}: {block.markers}"
        command = ["bash", "-e", "-c", block.text] if block.language == "sh" else ["python", "-c", block.text]
        log = self.folder / ".log"
        log = log.with_suffix(f".{len(list(self.folder.glob('.log.*')))}")
        wanted = block.markers.get("prints", "")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if "background" in block.markers:
            self._background.append((block, process, log))
            # The node says that it is ready; nothing else is waited for.
            _wait_until(lambda: b"active" in log.read_bytes() or process.poll() is not None, 60.0)
            assert process.poll() is None, f"{block.place} ended:\n{log.read_text()}"
            return
        assert process.wait(300.0) == 0, f"{block.place}:\n{log.read_text()[-3000:]}"
        assert wanted in log.read_text(), (
            f"{block.place} did not print {wanted!r}:\n{log.read_text()[-3000:]}"
        )

    def end(self) -> None:
        """Stop what runs in the background, as Ctrl-C would; it must have printed what its marker says."""
        for block, process, log in self._background:
            wanted = block.markers.get("prints", "")
            found = _wait_until(lambda log=log, wanted=wanted: wanted in log.read_text(), 10.0)
            alive = process.poll() is None
            if alive:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(20.0)
            assert alive, f"{block.place} ended by itself:\n{log.read_text()[-3000:]}"
            assert found, f"{block.place} did not print {wanted!r}:\n{log.read_text()[-3000:]}"
        self._background = []

    def kill(self) -> None:
        """End what a failed test has left."""
        for _, process, _ in self._background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until(true: Any, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def run_page(page: Path, folder: Path) -> None:
    """Run the blocks of a page that need nothing which a test has not."""
    workspace = Workspace(folder)
    try:
        for block in blocks(page):
            if block.language in RUN and "needs" not in block.markers:
                workspace.run(block)
        workspace.end()
    finally:
        workspace.kill()
