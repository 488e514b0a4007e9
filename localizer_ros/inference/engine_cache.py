"""Compiled engines on disk: tied to GPU, library version, precision and network, rebuilt when any of them differs.

They lie in the scene, and where that cannot be written (a read-only volume, a folder of others) in the user's cache.
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
from functools import cache
from pathlib import Path

from localizer_ros.core.files import try_folder
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


def engine_folders(networks: Path) -> list[Path]:
    """Folders in which engines of the networks in a folder of a scene may lie: the scene's own, then the user's."""
    scene = networks.parent
    try:
        users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        # A user without a home.
        return [scene / ENGINES]
    # By path: a folder of engines is kept in order by the networks of one scene.
    return [scene / ENGINES, users / "localizer_ros" / engine_key(str(scene.resolve()))]


def engine_folder(networks: Path) -> Path:
    """The first of :func:`engine_folders` that can be written to; where none can, the first, and each start compiles.

    Is told, once, where it is not the scene's own.
    """
    folders = engine_folders(networks)
    reason = ""
    for folder in folders:
        try:
            try_folder(folder)
        except OSError as error:
            reason = reason or str(error.strerror)
            continue
        if folder != folders[0]:
            _tell(f"{folders[0]}: cannot be written ({reason}); what is compiled is kept in {folder}")
        return folder
    _tell(f"{folders[0]}: cannot be written ({reason}); networks are compiled at every start")
    return folders[0]


@cache
def _tell(line: str) -> None:
    """Log a warning, once for all networks of a process."""
    logger.warning("%s", line)


def engine_name(name: str, *parts: str) -> str:
    """File name of a compiled engine.

    Args:
        name: of the network, with :data:`LEAN` for the lean runtime.
        parts: see :func:`engine_key`.
    """
    return f"{name}-{engine_key(*parts)}.engine"


def cached_engine(networks: Path, name: str, build: Callable[[Path], bytes]) -> bytes:
    """An engine, built when it is not whole on disk; engines of the same name with other keys are removed then.

    Args:
        networks: folder of the networks of a scene.
        name: of the engine's file, by :func:`engine_name`.
        build: makes the engine; given the folder that it will lie in.
    """
    for folder in engine_folders(networks):
        if (engine := read_blob(folder / name)) is not None:
            return engine
    folder = engine_folder(networks)
    engine = build(folder)
    for old in folder.glob("*.engine"):
        if _network_of(old) == _network_of(folder / name):
            old.unlink(missing_ok=True)
    write_blob(folder / name, engine)
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
    cards = [read_card(path, ModelCard) for path in networks.glob("*.yaml")]
    names = {card.name for card in cards}
    for engines in engine_folders(networks):
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
