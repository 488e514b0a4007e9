"""What an interrupted run leaves for the next one to go on from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from localizer_ros.core.files import clear, only_writer
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError, FrameRejected, LocalizerError, SourceError
from localizer_ros.datasets.source import FrameSource, broken_frames

# What must be the same for a run to be gone on with; written first, and whole.
_SETTINGS, _RECORDING = "config.yaml", "recording.txt"
# Images that stand for all when a recording is recognised.
_LOOKED_AT = 8


def work_path(out: Path) -> Path:
    """Where the work on ``out`` is kept: ``.NAME.work`` beside it."""
    return out.parent / f".{out.name}.work"


def is_begun(out: Path) -> bool:
    """Whether an interrupted run left something to go on from."""
    return all((work_path(out) / name).is_file() for name in (_SETTINGS, _RECORDING))


def _digest(source: FrameSource) -> str:
    """What is known of the frames, in short: the same files may be read with other times, poses, topics or cameras, and
    others may have taken their place."""
    digest = hashlib.sha256(repr(source.camera.to_dict()).encode())
    for record in source.records:
        digest.update(repr((record.name, record.stamp_ns, _numbers(record.T_map_cam))).encode())
    if source.odometry is not None:
        moved = [T.matrix() for T in source.odometry.poses]
        digest.update(source.odometry.stamps_ns.tobytes() + np.array(moved).tobytes())
    digest.update(repr((_numbers(source.T_base_cam), getattr(source, "details", None))).encode())
    broken = broken_frames(source)
    digest.update(repr(sorted(broken.items())).encode())
    if source.path.is_file():
        state = source.path.stat()
        digest.update(repr((state.st_size, state.st_mtime_ns)).encode())
        return digest.hexdigest()[:16]
    # All images would take as long as the work.
    shown = np.linspace(0, len(source.records) - 1, _LOOKED_AT).round().astype(int)
    for index in sorted(set(shown.tolist())):
        if source.records[index].name not in broken:
            try:
                digest.update(source.read(index).image.tobytes())
            except (SourceError, FrameRejected) as error:
                digest.update(str(error).encode())
    return digest.hexdigest()[:16]


def _numbers(T: SE3 | None) -> list[list[float]] | None:
    return None if T is None else T.matrix().tolist()


@contextmanager
def work_folder(
    out: Path, source: FrameSource, part: str, settings: str, resume: bool = True, extra: str = ""
) -> Iterator[Path]:
    """The folder at ``work_path``; gone when all went well, kept after an interruption.

    Args:
        out: what the work shall become.
        source: the recording, already cut to ``part``.
        part: name of that part.
        settings: of the work, as text.
        resume: go on in a folder that an interrupted run left, where there is one; else it is lost.
        extra: what else decides the outcome.

    Raises:
        ConfigError: the folder to go on in was begun with other settings or another recording, or another process is
            at it.
    """
    work = work_path(out)
    frames = f"{len(source.records)} frames {_digest(source)}"
    recording = f"{source.path.resolve()}\n{part}\n{frames}\n{extra}\n"
    expected = ((_SETTINGS, settings, "settings"), (_RECORDING, recording, "frames or weights"))
    with only_writer(work, out, ConfigError):
        # Killed before both were written, nothing else was either.
        if resume and is_begun(out):
            for name, now, what in expected:
                if (work / name).read_text() != now:
                    raise ConfigError(
                        f"{out}: an interrupted call left work in {work}, which was begun with other {what}; give the "
                        "same again to go on, or --no-resume to start over"
                    )
        else:
            clear(work)
            for name, now, _ in expected:
                partial = work / f"{name}.partial"
                partial.write_text(now)
                partial.replace(work / name)
        try:
            yield work
        except LocalizerError:
            # Nothing to go on from: nothing is left.
            if {file.name for file in work.rglob("*") if file.is_file()} <= {_SETTINGS, _RECORDING}:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
