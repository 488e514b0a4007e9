"""A folder of images and nothing else, in natural order; each folder in it that holds images is a sequence.

There are no poses. There are no times either, unless all names are stamps (``1403636579.763555.png``, or whole
micro- or nanoseconds since 1970). The camera is that of ``camera.yaml``, else it is not known. Most images must have
one size; others, and what is no image, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localizer_ros.core.files import natural_key
from localizer_ros.core.trajectory import seconds_to_ns
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile
from localizer_ros.datasets.invented_times import invented_ns
from localizer_ros.datasets.source import FrameRecord, Stamps, is_image

# What lies beside images and is none of the camera's.
_OTHERS = ("masks", "mask", "depth", "splits", "thumbnails")


def open_recording(path: Path) -> FolderSource:
    """Open a folder. Raises SourceError where it holds no images."""
    folders = [path]
    if not any(is_image(file) for file in path.iterdir()):
        folders = [f for f in path.iterdir() if f.is_dir() and f.name not in _OTHERS and f.name[0] != "."]
    sequences = {f: _images(f) for f in sorted(folders, key=natural_key)}
    sequences = {folder: files for folder, files in sequences.items() if files}
    if not sequences:
        raise SourceError(f"{path}: holds no images")
    known = _stamps_of_names([file for files in sequences.values() for file in files])
    frames = []
    for number, (folder, files) in enumerate(sequences.items()):
        for index, file in enumerate(files):
            stamp_ns = invented_ns(index, number) if known is None else known[file]
            record = FrameRecord(str(file.relative_to(path)), folder.resolve().name, stamp_ns, None)
            frames.append(ImageFile(record, file, None))
    stamps: Stamps = "invented"
    if known is not None:
        stamps = "recorded"
        frames.sort(key=lambda frame: frame.record.stamp_ns)
    return FolderSource(path, "images", frames, "none", stamps)


def _images(folder: Path) -> list[Path]:
    return sorted((file for file in folder.iterdir() if is_image(file)), key=natural_key)


def _stamps_of_names(files: Sequence[Path]) -> dict[Path, int] | None:
    """Nanoseconds by the names of images; None unless all are stamps of the same kind, none twice."""
    for kind in (_seconds, _microseconds, _nanoseconds):
        stamps = {file: kind(file.stem) for file in files}
        known = {file: stamp for file, stamp in stamps.items() if stamp is not None}
        if len(known) == len(files) == len(set(known.values())):
            return known
    return None


# Frame numbers are shorter: stamps count from 1970 and are of this century.
def _seconds(stem: str) -> int | None:
    whole, _, fraction = stem.partition(".")
    return seconds_to_ns(stem) if len(whole) == 10 and (whole + fraction).isdecimal() and fraction else None


def _microseconds(stem: str) -> int | None:
    return int(stem) * 1000 if len(stem) == 16 and stem.isdecimal() else None


def _nanoseconds(stem: str) -> int | None:
    return int(stem) if len(stem) == 19 and stem.isdecimal() else None
