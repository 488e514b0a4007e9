"""Damaged recordings and scenes by the hundred: each must be read, or refused in one line.

Usage: python tools/fuzz_readers.py [--reader NAME ...] [--count N] [--seed S]

Every variant of a small recording or scene is damaged in one place (``fuzz_changes.py``), and then opened, looked at,
read and converted in a process of its own with limits (``fuzz_cases.py``, ``fuzz_scenes.py``). Faults, which make
this exit with 1: a traceback, a crash, more than ten seconds of work or forty of waiting, more than 2 GiB, an error
that names no file, a file outside the folder that was named. Content that differs and of which nothing was said is
listed by file and damage at the end, to be looked at: it is right only where no check could see it. A line of a
listing that is gone, a digit of a pose or pixels of an image that are others belong there; what a format says twice
does not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_cases import READERS, build, read_all
from fuzz_changes import ESCAPE, changed
from fuzz_scenes import SCENES, build_scene_of, frames_to_localize, localize, sealed

from localizer_ros.core.types import UNFORESEEN, LocalizerError
from localizer_ros.core.words import one_line

Work = Callable[[], tuple[dict[str, Any], list[str]]]
"""Reads a variant: its content, and what was said to be wrong with it."""

WORK_S, WAIT_S, MOST_MB = 10, 40, 2048


@dataclass(frozen=True)
class Result:
    """What came of a variant.

    Attributes:
        kind: ``read``, ``refused``, or a fault: ``traceback``, ``crash``, ``hang``, ``memory``, ``line``, ``outside``.
        detail: the error or traceback.
        content: what was read.
        said: what was said to be wrong.
    """

    kind: str
    detail: str = ""
    content: Any = None
    said: tuple[str, ...] = ()


def attempt(work: Work) -> Result:
    """What comes of reading a variant, in this process."""
    try:
        content, said = work()
    except LocalizerError as error:
        line = one_line(str(error))
        if UNFORESEEN in line:
            return Result("traceback", line + "\n" + traceback.format_exc(limit=-4))
        return Result("refused" if "/" in line else "line", line)
    except MemoryError:
        return Result("memory", traceback.format_exc(limit=-4))
    except OSError as error:
        # The command line turns these into one line too, where they name a file.
        return Result(
            "refused" if error.filename else "traceback", f"{error}\n{traceback.format_exc(limit=-4)}"
        )
    except Exception:
        return Result("traceback", traceback.format_exc(limit=-6))
    return Result("read", content=content, said=tuple(said))


def limited(work: Work) -> Result:
    """What comes of it in a process of its own, with limits of time and memory."""
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            _child(work, told.fileno())
        usage, status = _waited(child)
        if status is None:
            return Result("hang", f"waits for more than {WAIT_S} s")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.Signals(number).name
            return Result("hang" if number in (signal.SIGXCPU, signal.SIGKILL) else "crash", name)
        if usage.ru_maxrss > 1024 * MOST_MB:
            return Result("memory", f"{usage.ru_maxrss / 1024:.0f} MB")
        told.seek(0)
        text = told.read()
        return (
            Result(**json.loads(text))
            if text
            else Result("crash", f"exit code {os.waitstatus_to_exitcode(status)}")
        )


def _child(work: Work, told: int) -> None:
    """Never returns."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    now_mb = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() >> 20
    # Twice what is allowed is still measured; beyond it, allocation fails and the machine is safe.
    resource.setrlimit(resource.RLIMIT_AS, ((now_mb + 2 * MOST_MB) << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (WORK_S, WORK_S + 5))
    try:
        os.write(told, json.dumps(vars(attempt(work)), default=str).encode())
    except BaseException:
        os.write(told, json.dumps({"kind": "traceback", "detail": traceback.format_exc(limit=-4)}).encode())
    finally:
        # Nothing of the parent's is tidied up here.
        os._exit(0)


def _waited(child: int) -> tuple[resource.struct_rusage, int | None]:
    """What a process used, and its status; None where it had to be ended."""
    until = time.monotonic() + WAIT_S
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return usage, status
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            return os.wait4(child, 0)[2], None
        time.sleep(0.002)


class Fuzz:
    """Variants of one recording or scene.

    Args:
        name: a key of ``READERS`` or ``SCENES``.
        work: folder to work in.
        attempt: how a variant is read; in a process of its own where nobody says.
    """

    def __init__(self, name: str, work: Path, attempt: Callable[[Work], Result] = limited) -> None:
        self.name, self._work, self._attempt = name, work, attempt
        self._is_scene = name in SCENES
        self._original = work / "original"
        self._original.mkdir(parents=True)
        # Before any fork: what is imported once need not be imported in every process.
        (build_scene_of if self._is_scene else build)(name, self._original)
        self._frames = frames_to_localize() if self._is_scene else []
        folder = shutil.copytree(self._original, work / "in" / "variant")
        self.reference = attempt(lambda: self._read(folder, work / "reference"))
        if self.reference.kind != "read":
            raise RuntimeError(f"{name}: the undamaged one cannot be read: {self.reference.detail}")

    def run(self, seed: int) -> tuple[str, Result]:
        """The damage done, and what came of it."""
        rng = np.random.default_rng([seed, sum(map(ord, self.name))])
        folder, out = self._work / "in" / "variant", self._work / "out" / "converted"
        for old in (folder.parent, out.parent):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir(exist_ok=True)
        shutil.copytree(self._original, folder)
        file, change = changed(rng, folder)
        if self._is_scene and rng.random() < 0.7:
            sealed(folder, file)
        result = self._attempt(lambda: self._read(folder, out))
        if self._outside():
            result = Result("outside", ", ".join(self._outside()))
        return f"{file.relative_to(folder)}: {change}", result

    def _read(self, folder: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
        if self._is_scene:
            return localize(folder, self._frames)
        return read_all(self.name, folder, out)

    def _outside(self) -> list[str]:
        """What was written beside the folder that the conversion was to write."""
        there = [*self._work.glob("*"), *(self._work / "in").glob("*"), *(self._work / "out").glob("*")]
        known = {"original", "reference", "in", "out", "variant", "converted"}
        escaped = [*Path("/tmp").glob(f"{ESCAPE}*"), *self._work.rglob(f"*{ESCAPE}*")]
        inside = (self._work / "out" / "converted", self._work / "in" / "variant")
        return [
            str(path)
            for path in [*(p for p in there if p.name not in known), *escaped]
            if not any(folder in path.parents for folder in inside)
        ]

    def silently_different(self, result: Result) -> list[str]:
        """Names of the parts of the content that differ while nothing was said."""
        if result.kind != "read" or set(result.said) - set(self.reference.said):
            return []
        content = self.reference.content
        return [key for key in content if json.dumps(content[key]) != json.dumps(result.content[key])]


def fuzz(name: str, count: int, seed: int, work: Path) -> int:
    """The number of faults of one reader or kind of scene; prints each, and the rest in figures."""
    started = time.monotonic()
    case = Fuzz(name, work)
    kinds: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    for number in range(count):
        damage, result = case.run(seed + number)
        kinds[result.kind] += 1
        if result.kind not in ("read", "refused"):
            print(
                f"{name} --seed {seed + number} --count 1: {result.kind}: {damage}\n{result.detail}",
                flush=True,
            )
        elif differs := case.silently_different(result):
            silent[f"{damage}: {', '.join(differs)}"] += 1
    faults = sum(n for kind, n in kinds.items() if kind not in ("read", "refused"))
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    print(
        f"{name}: {count} variants: {told}; {sum(silent.values())} silently different; "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    for damage, n in sorted(silent.items()):
        print(f"  silent, {n}x: {damage}")
    return faults


def main() -> int:
    """See the module."""
    known = (*READERS, *SCENES)
    parser = argparse.ArgumentParser(description="Damaged recordings and scenes by the hundred.")
    parser.add_argument("--reader", action="append", choices=known, help="all by default; repeatable")
    parser.add_argument("--count", type=int, default=300, help="variants of each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faults = 0
    for name in arguments.reader or known:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
            faults += fuzz(name, arguments.count, arguments.seed, Path(work))
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
