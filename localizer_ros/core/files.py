"""Files and folders: a folder that appears whole or not at all, YAML read safely, names in their natural order."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from localizer_ros.core.types import LocalizerError, SceneError, SourceError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder of the same name to fill; it becomes ``out`` in one rename, or vanishes after an error.

    A killed run leaves only ``.NAME.partial`` beside ``out``, which the next one clears away.

    Raises:
        SourceError: ``out`` exists.
    """
    if out.exists():
        raise SourceError(f"{out}: exists already, expected a new folder")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    partial = parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    # One level down: what writes a bag names its files after their folder.
    folder = partial / out.name
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_yaml(path: Path, error: type[LocalizerError]) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file.

    Args:
        path: the file.
        error: what a failure is raised as.

    Raises:
        LocalizerError: of the given kind, in one line that begins with the path: there is no such file, it is not
            UTF-8 text, not YAML, nested too deeply, or holds something else than a mapping.
    """
    values = parse_yaml(read_text(path, error), str(path), error)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise error(f"{path}: expected a mapping (lines of 'key: value'), got {_kind(values)}")
    return values


def read_bytes(path: Path, error: type[LocalizerError]) -> bytes:
    """What a file holds. What is no regular file (a pipe, a device) would never end, and is not opened.

    Raises:
        LocalizerError: of the given kind, in one line that begins with the path.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: cannot be read (not a regular file)")
        return path.read_bytes()
    except (OSError, ValueError) as failure:
        # ValueError: a name with a NUL.
        why = getattr(failure, "strerror", None) or failure
        raise error(f"{path}: cannot be read ({why})") from failure


def read_text(path: Path, error: type[LocalizerError]) -> str:
    """The text of a UTF-8 file, see :func:`read_bytes`."""
    try:
        return read_bytes(path, error).decode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{path}: cannot be read (not UTF-8 text: {failure.reason})") from failure


def parse_yaml(text: str, where: str, error: type[LocalizerError]) -> Any:
    """The plain value that a YAML text holds, None for an empty one.

    Args:
        text: YAML.
        where: begins the message of an error.
        error: what a failure is raised as.

    Raises:
        LocalizerError: of the given kind, in one line: not YAML, nested too deeply, or a value that is none (a number
            of thousands of digits, a date that does not exist).
    """
    try:
        return yaml.safe_load(text)
    except RecursionError as failure:
        raise error(f"{where}: cannot be read (nested too deeply)") from failure
    except Exception as failure:
        # PyYAML lets through whatever its constructors of numbers, dates and booleans raise.
        why = " ".join(str(failure).split()) or type(failure).__name__
        raise error(f"{where}: cannot be read as YAML ({why})") from failure


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
