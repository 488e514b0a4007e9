"""Files and folders: a folder that appears whole or not at all, YAML read safely, names in their natural order."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from localizer_ros.core.types import UNFORESEEN, ConfigError, LocalizerError, SceneError, SourceError
from localizer_ros.core.words import did_you_mean

# A text file beyond that is none that belongs to a recording or a scene, and YAML of that size takes a minute to parse.
_LONGEST_YAML, _LONGEST_TEXT = 4 << 20, 1 << 30
# Values of a YAML file with every alias written out.
_MOST_VALUES = 1_000_000
_DEEPEST = 200


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder of the same name to fill; it becomes ``out`` in one rename, or vanishes after an error.

    A killed run leaves only ``.NAME.partial`` beside ``out``, which the next one clears away.

    Raises:
        SourceError: ``out`` exists, or another process is writing it.
    """
    if out.exists():
        raise SourceError(f"{out}: exists already, expected a new folder")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    partial = parent / f".{out.name}.partial"
    with only_writer(partial, out, SourceError):
        clear(partial)
        # One level down: what writes a bag names its files after their folder.
        folder = partial / out.name
        folder.mkdir()
        try:
            yield folder
            folder.rename(out)
        except KeyboardInterrupt as stop:
            stop.args = stop.args or (f"nothing was written to {out}",)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def only_writer(folder: Path, out: Path, error: type[LocalizerError]) -> Iterator[None]:
    """A block in which no other process has a folder, which is made where it is missing; it may be removed inside.

    Args:
        folder: where the work is done; a lock on it ends with the process, however that ends.
        out: what the work shall become, for the message.
        error: what it is raised as that another process is at it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise error(
                f"{out}: another process is writing it; wait for that, or choose another name"
            ) from None
        except OSError:
            # Some network file systems have no locks.
            break
        if folder.exists() and os.path.samestat(os.fstat(held), folder.stat()):
            break
        # Removed by the process that held it until now.
        os.close(held)
    try:
        yield
    finally:
        os.close(held)


def try_folder(folder: Path) -> None:
    """Make a folder and write to it: before the work whose result it shall hold.

    Raises:
        OSError: it cannot be made or written to; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Permissions alone do not say it: of a disk that is mounted read-only, or of a network.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def clear(folder: Path) -> None:
    """Remove what is in a folder, but not the folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def inside_name(name: str) -> str:
    """A name of a recording as a relative path that cannot lead out of the folder it is joined to."""
    parts = (part.replace("\0", "") for part in PurePosixPath(name.replace("\\", "/")).parts)
    return "/".join(part[:100] for part in parts if part not in ("", ".", "..", "/")) or "unnamed"


@contextmanager
def one_line_errors(path: Path, format: str) -> Iterator[None]:
    """A block that reads a recording: whatever it raises becomes a SourceError of one line that names a file.

    Args:
        path: of the recording.
        format: of the recording.
    """
    try:
        yield
    except OSError as error:
        raise SourceError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: a text file in it is not UTF-8 ({error.reason})") from error
    except ConfigError as error:
        # Of a camera, which knows no file.
        where = "" if str(path) in str(error) else f"{path}: "
        raise SourceError(f"{where}{error}") from error
    except LocalizerError:
        raise
    except Exception as error:
        # The last resort: who has a damaged recording is told that it is one, in one line, whatever it set off.
        why = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{path}: {format} recording cannot be read, {UNFORESEEN} ({why:.200})") from error


def read_yaml(path: Path, error: type[LocalizerError]) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file.

    Args:
        path: the file.
        error: what a failure is raised as.

    Raises:
        LocalizerError: of the given kind, in one line that begins with the path: there is no such file, it is not
            UTF-8 text, not YAML, nested too deeply, or holds something else than a mapping.
    """
    text = read_text(path, error, _LONGEST_YAML)
    values = parse_yaml(text, str(path), error)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise error(f"{path}: expected a mapping (lines of 'key: value'), got {_kind(values)}")
    return values


def read_bytes(path: Path, error: type[LocalizerError], most: int = _LONGEST_TEXT) -> bytes:
    """What a file holds. What is no regular file (a pipe, a device) would never end, and is not opened.

    Args:
        path: the file.
        error: what a failure is raised as.
        most: bytes; a larger file is not read.

    Raises:
        LocalizerError: of the given kind, in one line that begins with the path.
    """
    check_regular(path, error)
    try:
        if (size := path.stat().st_size) > most:
            raise error(f"{path}: cannot be read ({size >> 20} MB, expected at most {most >> 20})")
        return path.read_bytes()
    except (OSError, ValueError) as failure:
        # ValueError: a name with a NUL.
        why = getattr(failure, "strerror", None) or failure
        raise error(f"{path}: cannot be read ({why})") from failure


def is_there(path: Path, error: type[LocalizerError] = SourceError) -> bool:
    """Whether a file that may be missing is there. Raises an error where a pipe, a folder or a link to nowhere is."""
    check_regular(path, error)
    if path.is_file():
        return True
    if path.is_symlink():
        raise error(f"{path}: cannot be read (a link to nothing)")
    return False


def like_it(path: Path) -> str:
    """``; did you mean ...?`` for what lies beside a path that does not exist and has nearly its name; else empty.

    Nothing hidden is meant: what is half made lies there.
    """
    try:
        beside = [each.name for each in path.absolute().parent.iterdir() if not each.name.startswith(".")]
        return did_you_mean(path.name, beside)
    except OSError:
        return ""


def check_regular(path: Path, error: type[LocalizerError]) -> None:
    """Raise an error where a path is a pipe, a device or a folder, which no library must be given to read, or where it
    cannot be looked at."""
    try:
        regular = path.is_file() or not path.exists()
    except OSError as failure:
        # A folder of others, a name of thousands of letters.
        raise error(f"{path}: cannot be read ({failure.strerror})") from failure
    if not regular:
        raise error(f"{path}: cannot be read (not a regular file)")


def read_text(path: Path, error: type[LocalizerError], most: int = _LONGEST_TEXT) -> str:
    """The text of a UTF-8 file, see :func:`read_bytes`; the mark that Windows puts before it is left out.

    A zero byte is no text: what lay there is lost (a power cut leaves such files), or it is UTF-16.
    """
    data = read_bytes(path, error, most)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(f"{path}: cannot be read (not UTF-8 text: {failure.reason})") from failure
    if (zero := data.find(0)) >= 0:
        raise error(f"{path}: cannot be read (not text: a zero at byte {zero})")
    return text


def parse_yaml(text: str, where: str, error: type[LocalizerError]) -> Any:
    """The plain value that a YAML text holds, None for an empty one.

    Args:
        text: YAML.
        where: begins the message of an error.
        error: what a failure is raised as.

    Raises:
        LocalizerError: of the given kind, in one line: not YAML, nested too deeply, aliases that stand for millions of
            values or for themselves, or a value that is none (a number of thousands of digits, a date that does not
            exist).
    """
    try:
        # The parser takes quadratic time to find that out.
        steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text))
        if max(accumulate(steps), default=0) > _DEEPEST:
            raise RecursionError
        # An alias costs nothing here, and everything where a value is walked through or written.
        if "*" in text and _written_out(yaml.compose(text, yaml.SafeLoader), {}) > _MOST_VALUES:
            raise error(f"{where}: cannot be read (aliases that stand for too many values)")
        return yaml.safe_load(text)
    except RecursionError as failure:
        raise error(f"{where}: cannot be read (nested too deeply)") from failure
    except LocalizerError:
        raise
    except Exception as failure:
        # PyYAML lets through whatever its constructors of numbers, dates and booleans raise.
        why = " ".join(str(failure).split()) or type(failure).__name__
        raise error(f"{where}: cannot be read as YAML ({why})") from failure


def _written_out(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Number of values of a YAML node with every alias written out. Raises ValueError for one that holds itself."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if known[id(node)] == 0:
            raise ValueError("a value that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    parts = (
        node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    )
    count = 1 + sum(_written_out(part, known) for part in parts)
    known[id(node)] = count
    return count


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{type(value).__name__} {str(value)[:40]!r}"


def sha256_of(path: Path, error: type[LocalizerError] = SceneError) -> str:
    """Hex digest of a file.

    Args:
        path: the file.
        error: what a failure is raised as.

    Raises:
        LocalizerError: of the given kind: the file cannot be read.
    """
    check_regular(path, error)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror})") from failure


def natural_key(name: str | Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of a name or path in which ``seq2`` comes before ``seq10``: numbers by value, digits before letters."""
    text = str(name)
    return [_part_key(part) for part in re.findall("[0-9]+|[^0-9]+", text)], text


def _part_key(part: str) -> tuple[int, int, str]:
    if part[0] not in "0123456789":
        return 1, 0, part
    # By length, then by digits: the order of numbers of any size.
    digits = part.lstrip("0")
    return 0, len(digits), digits
