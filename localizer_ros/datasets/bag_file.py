"""The files of a bag: rosbag2 (sqlite3 or mcap, a folder or one file) or ROS 1, read by topic and time."""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.bag_storage import (
    bag_notes,
    message_counts,
    one_line,
    open_bag,
    storage_files,
)

# Messages within this time after the last one are reached by reading on; opening the bag anew there costs more.
_READ_ON_NS = 2_000_000_000


# What is opened anew in every process.
_OF_THE_READER = ("_lock", "_process", "_reader", "_stream", "_position", "_is_ros2")


class RawMessage(NamedTuple):
    """A message as the bag holds it.

    Attributes:
        topic: where it was published.
        log_ns: time of recording.
        data: its bytes.
        decode: gives the message; raises SourceError when the bytes are not of its type.
    """

    topic: str
    log_ns: int
    data: bytes
    decode: Callable[[], Any]


class BagFile:
    """An open bag that reads messages by topic and time; opened again in every process that uses it.

    Args:
        path: bag folder or file.

    Attributes:
        types: message type of every topic.
        counts: number of messages on every topic.
        notes: see ``bag_storage.bag_notes``.
        problems: what had to be passed over to open it, one line each.

    Raises:
        SourceError: not a bag, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recover = False
        self.problems: list[str] = []
        self.types: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._forget_reader()
        self._look()
        self.notes = bag_notes(path / "metadata.yaml")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _OF_THE_READER}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_reader()

    def recover(self) -> bool:
        """Go on with what is whole of a damaged bag; False where that is no help (already done, or no MCAP)."""
        files = storage_files(self._path)
        if self._recover or not any(file.suffix == ".mcap" for file in files):
            return False
        self._recover = True
        self._forget_reader()
        self._look()
        return True

    def _look(self) -> None:
        reader = self._open()
        self.types = {connection.topic: connection.msgtype for connection in reader.connections}
        self.counts = message_counts(reader)

    def _forget_reader(self) -> None:
        self._lock = threading.RLock()
        self._process = 0
        self._reader: AnyReader | None = None
        self._stream: Iterator[tuple[Connection, int, bytes]] | None = None
        # Topic, time of recording, and how many messages of that time were read.
        self._position = ("", 0, 0)

    def scan(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """All messages on some topics, in order of recording; fewer than the bag counts is a problem of it.

        Raises:
            SourceError: the bag is damaged.
        """
        reader = self._open()
        missing = {topic: self.counts[topic] for topic in topics}
        connections = [connection for connection in reader.connections if connection.topic in topics]
        try:
            for connection, log_ns, data in reader.messages(connections):
                missing[connection.topic] -= 1
                decode = partial(self._decode, reader, connection, data)
                yield RawMessage(connection.topic, log_ns, data, decode)
        except Exception as error:
            # The errors of rosbags, sqlite and the decompressors have no base class in common.
            raise self._damaged(error) from error
        self.problems += [
            f"{topic}: {count} of the {self.counts[topic]} messages that the bag counts are not there"
            for topic, count in missing.items()
            if count > 0
        ]

    def read(self, topic: str, log_ns: int, occurrence: int) -> Any:
        """One message: that recorded at a time, the nth of those. Reading in order reads the bag once.

        Raises:
            SourceError: the bag is damaged there, or has changed.
        """
        with self._lock:
            reader = self._open()
            try:
                found = self._find(reader, topic, log_ns, occurrence)
            except Exception as error:
                raise self._damaged(error) from error
            if found is None:
                # A file without an index is read in the order of writing, which is not quite that of time.
                self._stream = None
                found = self._find(reader, topic, log_ns, occurrence)
        if found is None:
            raise SourceError(
                f"{self._path}: message of {topic} at {log_ns} ns has gone; did the bag change?"
            )
        return self._decode(reader, *found)

    def _find(
        self, reader: AnyReader, topic: str, log_ns: int, occurrence: int
    ) -> tuple[Connection, bytes] | None:
        """The message, from the open stream where it lies ahead and near; None when there is no such message."""
        behind = self._position > (topic, log_ns, occurrence)
        far = log_ns - self._position[1] > _READ_ON_NS
        if self._stream is None or self._position[0] != topic or behind or far:
            connections = [connection for connection in reader.connections if connection.topic == topic]
            self._stream = reader.messages(connections, start=log_ns)
            self._position = (topic, log_ns, 0)
        for connection, at_ns, data in self._stream:
            current = self._position[2] if at_ns == self._position[1] else 0
            self._position = (topic, at_ns, current + 1)
            if (at_ns, current) == (log_ns, occurrence):
                return connection, data
        return None

    def header_stamp_ns(self, data: bytes) -> int:
        """Stamp of a message that begins with a header, without decoding it."""
        # ROS 2: four bytes of encapsulation (bit 0 of the second: little endian), then the stamp. ROS 1: the number of
        # the message, then the stamp.
        little = not self._is_ros2 or bool(data[1] & 1)
        seconds, nanoseconds = struct.unpack_from("<iI" if little else ">iI", data, 4)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def _open(self) -> AnyReader:
        # An open file is one position for all processes that inherited it.
        if self._reader is None or self._process != os.getpid():
            self._stream = None
            self._process = os.getpid()
            try:
                self._reader, self.problems = open_bag(self._path, self._recover)
            except SourceError:
                raise
            except Exception as error:
                raise self._damaged(error) from error
            # Closed with the last that uses it; at the end of the process the system does that.
            weakref.finalize(self, _close, self._reader).atexit = False
            self._is_ros2 = self._reader.is2
        return self._reader

    def _decode(self, reader: AnyReader, connection: Connection, data: bytes) -> Any:
        try:
            return reader.deserialize(data, connection.msgtype)
        except Exception as error:
            raise SourceError(
                f"{self._path}: a message on {connection.topic} is not a {connection.msgtype} ({error})"
            ) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(f"{self._path}: bag cannot be read ({one_line(error)})")


def _close(reader: AnyReader) -> None:
    # sqlite refuses to close under a cursor that is still open; the file goes with the reader all the same.
    with suppress(Exception):
        reader.close()
