"""Compiled engines on disk: tied to GPU, library version, precision and network, rebuilt when any of them differs."""

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


def engine_key(onnx_sha256: str, gpu: str, library: str, precision: str) -> str:
    """Short key of everything a compiled engine is tied to.

    Args:
        onnx_sha256: of the network.
        gpu: name and compute capability; an engine of one GPU crashes or crawls on another.
        library: name and version of the compiler.
        precision: e.g. ``fp16``.
    """
    text = json.dumps([onnx_sha256, gpu, library, precision])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def cached_engine(folder: Path, name: str, key: str, build: Callable[[], bytes]) -> bytes:
    """The engine of ``key``, built when it is not in ``folder``; engines of other keys of ``name`` are removed.

    A folder that cannot be written costs the build at every start, nothing else.
    """
    path = folder / f"{name}-{key}.engine"
    if path.is_file():
        return path.read_bytes()
    engine = build()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{name}-*.engine"):
            old.unlink()
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(engine)
        temporary.replace(path)
    except OSError as error:
        logger.warning(
            "%s: the engine cannot be cached (%s) and will be built at every start", folder, error.strerror
        )
    return engine
