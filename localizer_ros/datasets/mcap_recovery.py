"""An MCAP file whose recorder was stopped, or that is damaged, read as far as it is whole."""

from __future__ import annotations

import bisect
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

from localizer_ros.core.types import SourceError

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 1, 2, 3, 4, 5, 6, 15
_KEPT = (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK)
# Larger than any record but an attachment; a length beyond it is damage. Chunks are a few MB.
_LARGEST_BYTES = 1 << 31
# A footer without a summary: readers then go through the records.
_END = bytes([_FOOTER]) + struct.pack("<QQQI", 20, 0, 0, 0) + _MAGIC


class WholeMcap:
    """What is whole of an MCAP file, in the place of a path that ``rosbags`` opens.

    Args:
        path: the file.

    Attributes:
        loss: what is not whole, in words; empty where everything is.

    Raises:
        SourceError: not an MCAP file of ROS 2, or nothing of it is whole.
    """

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        size = path.stat().st_size
        with path.open("rb") as file:
            self._head, begin = _header(path, file)
            self._ranges: list[tuple[int, int]] = []
            self._damaged = 0
            end = begin
            for start, length, good in _records(file, begin, size):
                end = start + length
                if not good:
                    self._damaged += 1
                elif self._ranges and sum(self._ranges[-1]) == start:
                    self._ranges[-1] = (self._ranges[-1][0], self._ranges[-1][1] + length)
                else:
                    self._ranges.append((start, length))
            ended = _ends(file, end, size)
        if not self._ranges:
            raise SourceError(f"{path}: nothing of this MCAP file is whole")
        parts = []
        if not ended:
            parts.append(f"it has no end, {100.0 * end / size:.0f} % of it is read")
        if self._damaged:
            parts.append(f"{self._damaged} damaged chunks are left out")
        self.loss = f"{path.name}: {' and '.join(parts)}" if parts else ""

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """As of a path."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """As of a path."""
        return False

    def open(self, mode: str = "rb") -> BinaryIO:
        """The whole records, with a header before and a footer behind them."""
        return io.BufferedReader(_Joined(self._path, self._head, self._ranges))


class _Joined(io.RawIOBase):
    """Parts of a file between a head and the end of an MCAP, as one file."""

    def __init__(self, path: Path, head: bytes, ranges: list[tuple[int, int]]) -> None:
        self._file = path.open("rb")
        self._head, self._ranges = head, ranges
        self._starts = [len(head)]
        for _, length in ranges:
            self._starts.append(self._starts[-1] + length)
        self._size = self._starts[-1] + len(_END)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._piece(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _piece(self, count: int) -> bytes:
        """At most ``count`` bytes from where the file stands, of one part."""
        if self._at < len(self._head):
            return self._head[self._at : self._at + count]
        if self._at >= self._starts[-1]:
            behind = self._at - self._starts[-1]
            return _END[behind : behind + count]
        part = bisect.bisect_right(self._starts, self._at) - 1
        start, length = self._ranges[part]
        inside = self._at - self._starts[part]
        self._file.seek(start + inside)
        return self._file.read(min(count, length - inside))

    def close(self) -> None:
        self._file.close()
        super().close()


def _header(path: Path, file: BinaryIO) -> tuple[bytes, int]:
    """Magic and header to write, and where the records behind them begin."""
    head = file.read(8 + 9)
    if len(head) < 17 or head[:8] != _MAGIC or head[8] != _HEADER:
        raise SourceError(f"{path}: not an MCAP file")
    (length,) = struct.unpack_from("<Q", head, 9)
    body = file.read(length) if length < 1 << 16 else b""
    if len(body) < max(4, length):
        raise SourceError(f"{path}: MCAP file ends within its header")
    (count,) = struct.unpack_from("<I", body)
    profile = body[4 : 4 + count]
    if profile not in (b"", b"ros2"):
        raise SourceError(f"{path}: MCAP file of profile {profile[:20]!r}, expected ros2")
    # Recorders other than rosbag2 leave the profile empty, which rosbags refuses.
    new = struct.pack("<I", 4) + b"ros2" + struct.pack("<I", 0)
    return _MAGIC + bytes([_HEADER]) + struct.pack("<Q", len(new)) + new, 17 + length


def _records(file: BinaryIO, begin: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Start, length and soundness of each record that is there in full, up to the end of the data."""
    at = begin
    while at + 9 <= size:
        file.seek(at)
        head = file.read(9)
        kind, (length,) = head[0], struct.unpack_from("<Q", head, 1)
        if kind in (0, _FOOTER, _DATA_END) or length > _LARGEST_BYTES or at + 9 + length > size:
            return
        if kind in _KEPT:
            yield at, 9 + length, kind != _CHUNK or _chunk_is_sound(file.read(length))
        at += 9 + length


def _chunk_is_sound(body: bytes) -> bool:
    """Whether a chunk decompresses to what it promises."""
    try:
        _, _, size, crc = struct.unpack_from("<QQQI", body)
        (count,) = struct.unpack_from("<I", body, 28)
        kind = body[32 : 32 + count].decode()
        (length,) = struct.unpack_from("<Q", body, 32 + count)
        data = body[40 + count : 40 + count + length]
        if size > _LARGEST_BYTES or len(data) != length or kind not in DECOMPRESSORS:
            return False
        raw = DECOMPRESSORS[kind](data, size)
    except Exception:
        # Whatever struct and the decompressors raise on damage.
        return False
    return len(raw) == size and (not crc or zlib.crc32(raw) == crc)


def _ends(file: BinaryIO, end: int, size: int) -> bool:
    """Whether the file goes on to its closing magic."""
    file.seek(max(end, size - 8))
    return file.read() == _MAGIC
