"""Compiled engines on disk: tied to GPU, library version, precision and network, rebuilt when any of them differs.

Every file begins with the checksum of what follows, so that a damaged one is found before a library reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

ENGINES = "engines"
"""Folder of a scene for compiled engines; it may be deleted at any time."""

_DIGEST_BYTES = hashlib.sha256().digest_size


def engine_key(*parts: str) -> str:
    """Short key of everything a compiled engine is tied to.

    Args:
        parts: checksum of the network; name and compute capability of the GPU, as an engine of one GPU crashes or
            crawls on another; name and version of the library; and the precision.
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def read_blob(path: Path) -> bytes | None:
    """What :func:`write_blob` wrote; None, with a warning, when it is damaged; None when there is nothing."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(blob).digest() != digest:
        logger.warning("%s: is damaged and not used", path)
        return None
    return blob


def write_blob(path: Path, blob: bytes) -> None:
    """Write a file whole or not at all. A folder that cannot be written is a warning: it is a cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(hashlib.sha256(blob).digest() + blob)
        temporary.replace(path)
    except OSError as error:
        logger.warning("%s: cannot be cached (%s) and will be made at every start", path, error.strerror)


def cached_engine(folder: Path, name: str, key: str, build: Callable[[], bytes]) -> bytes:
    """The engine of ``key``, built when it is not whole in ``folder``; engines of other keys of ``name`` are removed.

    A folder that cannot be written costs the build at every start, nothing else.
    """
    path = folder / f"{name}-{key}.engine"
    engine = read_blob(path)
    if engine is not None:
        return engine
    engine = build()
    if folder.is_dir():
        for old in folder.glob(f"{name}-*.engine"):
            old.unlink(missing_ok=True)
    write_blob(path, engine)
    return engine
