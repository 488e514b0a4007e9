"""Compiled engines on disk: tied to GPU, library version, precision and network, rebuilt when any of them differs.

Every file begins with the checksum of what follows, so that a damaged one is found before a library reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from localizer_ros.inference.model_card import ModelCard, read_card

logger = logging.getLogger(__name__)

ENGINES = "engines"
"""Folder of a scene for compiled engines; it may be deleted at any time."""

LEAN = "-lean"
"""Ends the name of a network in that of an engine for TensorRT's lean runtime."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_KEY_LENGTH = 20
_OPENVINO = "openvino"
_ENGINE_FILE = re.compile(rf"(.+)-[0-9a-f]{{{_KEY_LENGTH}}}\.engine")


def engine_key(*parts: str) -> str:
    """Short key of everything a compiled engine is tied to.

    Args:
        parts: checksum of the network; name and compute capability of the GPU, as an engine of one GPU crashes or
            crawls on another; name and version of the library; and the precision.
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_KEY_LENGTH]


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


def engine_name(name: str, *parts: str) -> str:
    """File name of a compiled engine.

    Args:
        name: of the network, with :data:`LEAN` for the lean runtime.
        parts: see :func:`engine_key`.
    """
    return f"{name}-{engine_key(*parts)}.engine"


def cached_engine(path: Path, build: Callable[[], bytes]) -> bytes:
    """The engine in a file, built when it is not whole there; engines of its name with other keys are removed then.

    A folder that cannot be written costs the build at every start, nothing else.

    Args:
        path: named by :func:`engine_name`.
        build: makes the engine.
    """
    engine = read_blob(path)
    if engine is not None:
        return engine
    engine = build()
    for old in path.parent.glob("*.engine"):
        if _network_of(old) == _network_of(path):
            old.unlink(missing_ok=True)
    write_blob(path, engine)
    return engine


def openvino_folder(engines: Path, card: ModelCard) -> Path:
    """Where OpenVINO keeps what it compiled of a network.

    Its files are named by what only OpenVINO knows (path and time of the network's file, settings, processor), so a
    folder of each network says what they are of.

    Args:
        engines: the folder for compiled engines.
        card: of the network.
    """
    return engines / _OPENVINO / f"{card.name}-{card.sha256[:_KEY_LENGTH]}"


def forget_unused(networks: Path) -> None:
    """Remove the engines of networks that a scene no longer has; a process that runs one keeps what it has opened.

    Engines of the scene's networks for other machines, libraries and paths stay.

    Args:
        networks: folder of the networks of the scene.

    Raises:
        BackendError: a model card is unreadable; nothing is removed.
    """
    engines = networks.parent / ENGINES
    cards = [read_card(path, ModelCard) for path in networks.glob("*.yaml")]
    names = {card.name for card in cards}
    folders = {openvino_folder(engines, card) for card in cards}
    # Files beside the folders are of versions that had one folder for all networks.
    for compiled in (*engines.glob("*.blob"), *(engines / _OPENVINO).glob("*")):
        if compiled.is_dir() and compiled not in folders:
            shutil.rmtree(compiled, ignore_errors=True)
        elif compiled.suffix == ".blob":
            compiled.unlink(missing_ok=True)
    for engine in engines.glob("*.engine"):
        name = _network_of(engine)
        if name is not None and name.removesuffix(LEAN) not in names:
            engine.unlink(missing_ok=True)


def _network_of(engine: Path) -> str | None:
    """The name that :func:`engine_name` was given; None for a file that it did not name."""
    known = _ENGINE_FILE.fullmatch(engine.name)
    return known and known[1]
