"""What the commands say and how: one line for a known error, a progress bar, facts, tables, JSON and logging."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from localizer_ros.core.extras import how_to_install
from localizer_ros.core.threads import one_thread_for_linear_algebra
from localizer_ros.core.words import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from localizer_ros.core.progress import Progress
    from localizer_ros.evaluation.comparison_tables import Table

P = ParamSpec("P")

LINE_EVERY_S = 5.0
NEW_STAGE_EVERY_S = 2.0
LONGEST_LIST = 12


def command(function: Callable[P, None]) -> Callable[P, None]:
    """The function as a command: every known error is one line on standard error and exit code 1.

    SIGTERM ends it as Ctrl-C does: what is half written is removed, and it is said what is kept.
    """
    return _as_command(function, _ended_like_by_hand)


def localizing_command(function: Callable[P, None]) -> Callable[P, None]:
    """The function as a command that localises frames, with the threads that this is fastest with; see
    :func:`command`."""
    return _as_command(function, _ended_like_by_hand, localizes=True)


def ros_command(function: Callable[P, None]) -> Callable[P, None]:
    """The function as a command that localises or plays frames and leaves signals to rclpy; see :func:`command`."""
    return _as_command(function, nullcontext, localizes=True)


def _as_command(
    function: Callable[P, None], block: Callable[[], AbstractContextManager[None]], localizes: bool = False
) -> Callable[P, None]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if localizes:
            one_thread_for_linear_algebra()
        from localizer_ros.core.types import LocalizerError

        try:
            with block():
                function(*args, **kwargs)
        except LocalizerError as error:
            say(f"localizer: {one_line(str(error))}")
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if (line := how_to_install(error.name or "")) is None:
                raise
            say(f"localizer: {line}")
            raise typer.Exit(1) from error
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except OSError as error:
            # Whatever cannot be read or written and was not foreseen nearer to it: a full disk, a folder of others.
            where = f"{error.filename}: " if error.filename is not None else ""
            taken = isinstance(error, FileExistsError)
            why = "is a file, expected a folder" if taken else error.strerror or str(error)
            say(f"localizer: {where}{why}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            say(f"localizer: interrupted{f'; {stop}' if str(stop) else ''}")
            raise typer.Exit(143 if isinstance(stop, _Terminated) else 130) from None

    return run


class _Terminated(KeyboardInterrupt):
    """SIGTERM: of a shutdown, a container or a batch system."""


@contextmanager
def _ended_like_by_hand() -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def going_on(out: Path, resume: bool) -> Iterator[None]:
    """A block of work on ``out`` that says when it goes on from an interrupted call, and when it is interrupted how to.

    Args:
        out: what the work shall become.
        resume: it goes on where there is something to go on from.
    """
    from localizer_ros.mapping.work_folder import is_begun, work_path

    if resume and is_begun(out):
        say(f"{out}: going on where an interrupted call stopped (--no-resume starts over)")
    try:
        yield
    except KeyboardInterrupt as stop:
        if is_begun(out):
            again = shlex.join(["localizer", *(word for word in sys.argv[1:] if word != "--no-resume")])
            stop.args = (f"what was done is kept in {work_path(out)}; to go on: {again}",)
        elif not out.exists():
            stop.args = (f"nothing was written to {out}",)
        raise


def set_up_logging(verbose: bool) -> None:
    """Log warnings of everything, and with ``verbose`` what this package does, on standard error."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("localizer_ros").setLevel(logging.INFO if verbose else logging.WARNING)


# --- progress ---


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal, a plain line every few seconds elsewhere; on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _drawn_bar(console) as draw:
            yield draw
    else:
        yield _plain_lines()


@contextmanager
def _drawn_bar(console: Console) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield draw


def _plain_lines() -> Progress:
    last_stage, last_at = "", time.monotonic()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, last_at
        now = time.monotonic()
        if now - last_at >= (LINE_EVERY_S if stage == last_stage else NEW_STAGE_EVERY_S):
            say(f"{stage}: {done}/{total}" if total else f"{stage}: {done}")
            last_stage, last_at = stage, now

    return tell


# --- results ---


def say(line: str) -> None:
    """A line on standard error: a remark, not a result."""
    print(line, file=sys.stderr, flush=True)


def make_room(json_file: Path | None = None, report: Path | None = None, new: Path | None = None) -> None:
    """Make the folders that results go to before the work: a mistyped path must not cost its result.

    Args:
        json_file: a file to write; one that is there stays as it is.
        report: a folder to write files into.
        new: a folder that the work makes.

    Raises:
        OSError: a folder cannot be made or written to, or the file cannot.
    """
    from localizer_ros.core.files import try_folder

    if report is not None:
        try_folder(report)
    if new is not None:
        try_folder(new.absolute().parent)
    if json_file is not None and not _is_stdout(json_file):
        try_folder(json_file.absolute().parent)
        there = json_file.exists()
        with json_file.open("a"):
            pass
        if not there:
            json_file.unlink()


def write_json(json_file: Path | None, text: str) -> bool:
    """Write a JSON text where ``--json`` says; whether standard output is still free for what a person reads."""
    if json_file is None:
        return True
    if _is_stdout(json_file):
        print(text.rstrip("\n"))
        return False
    json_file.write_text(text.rstrip("\n") + "\n")
    return True


def _is_stdout(json_file: Path) -> bool:
    return str(json_file) == "-"


def print_json(facts: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(facts, indent=2))


def print_facts(facts: dict[str, Any], indent: str = "") -> None:
    """A line for each fact on standard output, those of a dictionary indented below its name."""
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            print_facts(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{indent}{key}:")
            for row in value:
                cells = (f"{k} {_in_words(v, 4)}" for k, v in row.items() if v is not None)
                print(f"{indent}  {', '.join(cells)}")
        else:
            print(f"{indent}{key}: {_in_words(value)}")


def _in_words(value: Any, digits: int = 6) -> str:
    if isinstance(value, list | tuple):
        listed = ", ".join(_in_words(each, digits) for each in value[:LONGEST_LIST])
        return f"{listed}, ... ({len(value)})" if len(value) > LONGEST_LIST else listed or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def print_tables(tables: Sequence[Table], markdown: str) -> None:
    """Tables with lines on a terminal, elsewhere the Markdown text."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print(markdown, end="")
        return
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in table.columns:
            drawn.add_column(Text(name.replace(", ", "\n")), overflow="fold")
        for row in table.rows:
            # Raw above smoothed: a terminal has little width.
            drawn.add_row(*(Text(cell.replace(" -> ", "\n")) for cell in row))
        console.print(drawn)
