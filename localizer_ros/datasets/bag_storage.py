"""The storage files of a bag, opened as far as they are whole, whatever their ``metadata.yaml`` says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from localizer_ros.core.files import check_regular, natural_key, read_yaml
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.mcap_recovery import WholeMcap

_METADATA = "metadata.yaml"


def open_bag(path: Path, recover: bool = False) -> tuple[AnyReader, list[str]]:
    """A reader of a rosbag2 (folder or storage file) or of a ROS 1 bag, and what had to be passed over to open it.

    Args:
        path: folder or file.
        recover: take of every MCAP file only what is whole, also where it has an end.

    Raises:
        SourceError: no bag here.
        Exception: of rosbags, sqlite or a decompressor: nothing of it can be read.
    """
    problems: list[str] = []
    storage_files(path)  # nothing that would never end
    # rosbags takes whatever ends in .bag for a file of ROS 1: of a folder with such a name it gets the storage files.
    if path.is_dir() and path.suffix != ".bag" and (path / _METADATA).is_file() and not recover:
        try:
            # rosbags would parse whatever stands there, however deep or large.
            read_yaml(path / _METADATA, SourceError)
            reader = _opened([path])
        except Exception as error:
            # Whatever rosbags and the libraries under it raise; the files themselves have the last word.
            why = one_line(error)
        else:
            why = _disagreement(path, reader)
            if not why:
                return reader, []
            reader.close()
        problems.append(f"{_METADATA} is not used, its storage files are read by themselves ({why})")
    files = storage_files(path)
    if not recover:
        try:
            return _opened(files), [*problems, *_left_in_journal(files)]
        except Exception:
            if not any(file.suffix == ".mcap" for file in files):
                raise
    whole = [WholeMcap(file) if file.suffix == ".mcap" else file for file in files]
    losses = [file.loss for file in whole if isinstance(file, WholeMcap) and file.loss]
    return _opened(whole), [*problems, *losses]


def storage_files(path: Path) -> list[Path]:
    """The storage files of a bag, in their natural order. Raises SourceError where there are none."""
    if not path.is_dir():
        check_regular(path, SourceError)
        return [path]
    for pattern in ("*.mcap", "*.db3", "*.bag", "*.mcap.zstd", "*.db3.zstd"):
        found = sorted(path.glob(pattern), key=natural_key)
        for file in found:
            check_regular(file, SourceError)
        if files := [file for file in found if file.is_file()]:
            return files
    raise SourceError(f"{path}: no bag here; expected metadata.yaml, *.mcap, *.db3 or *.bag")


def message_counts(reader: AnyReader) -> dict[str, int]:
    """Messages on every topic, as the storage files have them."""
    counts: dict[str, int] = {connection.topic: 0 for connection in reader.connections}
    for part in reader.readers:
        storages = _storages(part)
        for connection in [c for s in storages for c in s.connections] or part.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return counts


def bag_notes(file: Path) -> dict[str, str]:
    """What the writer of a rosbag2 noted about it in its ``metadata.yaml``; empty when there is nothing."""
    try:
        return dict(read_yaml(file, SourceError)["rosbag2_bagfile_information"]["custom_data"])
    except (SourceError, KeyError, TypeError, ValueError):
        # Optional since version 6; the rest of the file is checked by rosbags.
        return {}


def one_line(error: Exception) -> str:
    """What an error says, in one line without absolute paths."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(?:/[^/'\"\s]+)+/(?=[^/'\"\s])", "", text)


def _opened(paths: list[Any]) -> AnyReader:
    reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_HUMBLE))
    reader.open()
    return reader


def _storages(part: Any) -> list[Any]:
    """The readers of the single files of a rosbag2 folder; empty for anything else."""
    return list(getattr(getattr(part, "storage", None), "storages", ()))


def _disagreement(path: Path, reader: AnyReader) -> str:
    """What a ``metadata.yaml`` and the storage files say differently, so that messages would be lost; else empty."""
    folder: Any = getattr(reader.readers[0], "storage", None)
    listed = {file.path.name for file in _storages(reader.readers[0])}
    suffixes = {Path(name).suffix for name in listed}
    there = {file.name for file in path.iterdir() if file.suffix in suffixes}
    if there - listed and getattr(folder.metadata, "compression_mode", None) != "file":
        return f"it does not list {', '.join(sorted(there - listed, key=natural_key)[:3])}"
    for storage in _storages(reader.readers[0]):
        for found in storage.connections:
            same = (c for c in reader.connections if (c.topic, c.msgtype) == (found.topic, found.msgtype))
            known = any(
                c.ext == found.ext and (not c.digest or not found.digest or c.digest == found.digest)
                for c in same
            )
            if found.msgcount and not known:
                return f"topic {found.topic} stands in it otherwise than in {storage.path.name}"
    return ""


def _left_in_journal(files: list[Path]) -> list[str]:
    """sqlite3 files whose last messages still lie in a journal, which a read-only database does not take in."""
    journals = [Path(f"{file}-wal") for file in files if file.suffix == ".db3"]
    return [
        f"{journal.name} holds messages that are not read: `sqlite3 {journal.name[:-4]} 'pragma wal_checkpoint'` "
        "takes them in"
        for journal in journals
        if journal.is_file() and journal.stat().st_size
    ]
