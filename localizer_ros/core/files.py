"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localizer_ros.core.types import SourceError


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
