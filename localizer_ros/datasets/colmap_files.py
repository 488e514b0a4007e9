"""Files of a COLMAP model checked before pycolmap reads them.

pycolmap believes every count in a binary model: one that is cut or damaged makes it allocate without bound or wait
forever, and a camera cut by a few bytes is taken with what happened to lie in memory. Here each record is walked
through by its sizes; a file must end exactly where its last record does. The layout is that of COLMAP's
``reconstruction_io_binary.cc``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from localizer_ros.core.files import check_regular, read_bytes
from localizer_ros.core.signals import take_back_sigterm
from localizer_ros.core.types import SourceError

_LARGEST_FILE = 8 << 30
_NAMES = ("cameras", "images", "points3D", "rigs", "frames")


class _Damaged(Exception):
    """Why a file is not what it should be."""


class _Bytes:
    """A file's bytes and a position in them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> tuple[int | float, ...]:
        """The next values, little endian."""
        size = struct.calcsize(layout)
        if self._at + size > len(self._data):
            raise _Damaged("it is cut off")
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += size
        return values

    def count(self, layout: str, smallest: int) -> int:
        """The next number of records, each of which takes at least so many bytes."""
        (number,) = self.take(layout)
        if number * smallest > len(self._data) - self._at:
            raise _Damaged(f"it promises {number} entries and is cut off or damaged")
        return int(number)

    def skip(self, size: int) -> None:
        """Go on behind so many bytes."""
        self._at += size
        if self._at > len(self._data):
            raise _Damaged("it is cut off")

    def skip_text(self) -> None:
        """Go on behind a name, which ends with a zero."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise _Damaged("it is cut off within a name")
        self._at = end + 1

    def check_end(self) -> None:
        """Raise unless all was taken."""
        if self._at != len(self._data):
            raise _Damaged(f"{len(self._data) - self._at} bytes follow its last entry")


def check_model(folder: Path) -> None:
    """Check the files that pycolmap would read of a model.

    Raises:
        SourceError: a file is a pipe or device, missing, cut, longer than its entries, or damaged; names it.
    """
    kind = next((k for k in ("bin", "txt") if (folder / f"cameras.{k}").is_file()), "bin")
    for name in _NAMES:
        file = folder / f"{name}.{kind}"
        check_regular(file, SourceError)
        if name in ("images", "points3D") and not file.is_file():
            raise SourceError(f"{file}: is missing beside cameras.{kind}")
        if file.is_file() and kind == "bin":
            data = _Bytes(read_bytes(file, SourceError, _LARGEST_FILE))
            try:
                _WALKS[name](data)
                data.check_end()
            except _Damaged as error:
                raise SourceError(f"{file}: {error}") from error


def _cameras(data: _Bytes) -> None:
    for _ in range(data.count("<Q", 24 + 16)):
        _, model, width, height = data.take("<iiQQ")
        if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
            raise _Damaged(f"a camera has a size of {width} x {height}")
        data.skip(8 * _parameters(int(model)))


@lru_cache
def _parameters(model: int) -> int:
    """Number of parameters of a camera model by its number in a file."""
    import pycolmap

    take_back_sigterm()

    try:
        camera = pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(model), 1.0, 2, 2)
    except (ValueError, RuntimeError) as error:
        raise _Damaged(f"there is no camera model of number {model}") from error
    return len(camera.params)


def _images(data: _Bytes) -> None:
    for _ in range(data.count("<Q", 64 + 1 + 8)):
        data.skip(64)
        data.skip_text()
        data.skip(24 * data.count("<Q", 24))


def _points(data: _Bytes) -> None:
    for _ in range(data.count("<Q", 51)):
        data.skip(43)
        data.skip(8 * data.count("<Q", 8))


def _rigs(data: _Bytes) -> None:
    for _ in range(data.count("<Q", 8)):
        data.take("<I")
        sensors = data.count("<I", 8)
        for number in range(sensors):
            data.skip(8)
            # The first is the reference, which has no pose.
            if number and data.take("<B") != (0,):
                data.skip(56)


def _frames(data: _Bytes) -> None:
    for _ in range(data.count("<Q", 68)):
        data.skip(8 + 56)
        data.skip(16 * data.count("<I", 16))


_WALKS: dict[str, Callable[[_Bytes], None]] = {
    "cameras": _cameras,
    "images": _images,
    "points3D": _points,
    "rigs": _rigs,
    "frames": _frames,
}
