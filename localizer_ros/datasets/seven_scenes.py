"""7-Scenes: ``seq-NN/frame-NNNNNN.color.png`` (or jpg) with ``frame-NNNNNN.pose.txt``, camera to world.

A scene folder with ``TrainSplit.txt`` and ``TestSplit.txt``, or one folder of frames. Which ground truth the
poses are (``KinectFusion``, unless a one-line ``ground_truth.txt`` in the folder says otherwise) goes into
every report, because the original and the structure-from-motion poses of 2021 differ by centimetres.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from localizer_ros.core.files import is_there, natural_key
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile, common_size, read_lines
from localizer_ros.datasets.invented_times import invented_ns, sequence_numbers
from localizer_ros.datasets.source import FrameRecord

_FRAME = re.compile(r"frame-(\d+)\.color\.(png|jpg|jpeg)$", re.IGNORECASE)
# The files have no stamps; the Kinect ran at 30 Hz.
_PERIOD_NS = 1e9 / 30.0


def open_recording(path: Path) -> FolderSource:
    """Open a scene or a single folder of frames.

    Raises:
        SourceError: no frames, a malformed pose or split file; the message names file and line.
    """
    folders = sorted(
        (int(match[1]), folder)
        for folder in path.glob("seq-*")
        if folder.is_dir() and (match := re.fullmatch(r"seq-?0*(\d+)", folder.name))
    )
    numbers = sequence_numbers([number for number, _ in folders])
    found = [
        frame
        for number, (_, folder) in zip(numbers, folders, strict=True)
        for frame in _read_sequence(number, folder)
    ]
    if not folders:
        found = _read_sequence(0, path, single=True)
    if not found:
        raise SourceError(
            f"{path}: no frames found; expected frame-NNNNNN.color.png in it or in seq-NN folders"
        )
    records = [record for record, _ in found]
    splits = {}
    for name, file_name in (("train", "TrainSplit.txt"), ("test", "TestSplit.txt")):
        if folders and is_there(path / file_name):
            splits[name] = _read_split(path / file_name, dict(folders), records)
    camera = _default_camera(path, [file for _, file in found])
    frames = [ImageFile(record, file, camera) for record, file in found]
    return FolderSource(path, "7scenes", frames, "KinectFusion", splits=splits)


def _read_sequence(number: int, folder: Path, single: bool = False) -> list[tuple[FrameRecord, Path]]:
    """The frames of a folder and their images, in order; ``single`` when the folder is all there is."""
    frames = []
    for file in sorted(folder.iterdir(), key=natural_key):
        if match := _FRAME.match(file.name):
            record = FrameRecord(
                name=file.name if single else f"{folder.name}/{file.name}",
                sequence=folder.resolve().name if single else folder.name,
                stamp_ns=invented_ns(int(match[1]), number, _PERIOD_NS),
                T_map_cam=_read_pose(folder / f"{file.name.split('.')[0]}.pose.txt"),
            )
            frames.append((record, file))
    return frames


def _default_camera(path: Path, images: list[Path]) -> Camera | None:
    """The colour camera of the Kinect when there is no ``camera.yaml``.

    The often used focal length of 585 px is the depth camera's. The colour images, which are not registered
    to depth, fit 525 px: epipolar errors with the given poses are a third smaller.
    """
    if is_there(path / "camera.yaml") or common_size(images) != (640, 480):
        return None
    return Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)


def _read_pose(path: Path) -> SE3 | None:
    """The pose, or None where the file is missing or marks a lost track (zeros, nan, inf, -1.#IND)."""
    if not is_there(path):
        return None
    rows = [line.split() for _, line in read_lines(path)]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise SourceError(f"{path}: expected a 4x4 matrix of numbers")
    try:
        # Windows wrote not-a-number as -1.#IND and the like.
        T = np.array([["nan" if "#" in value else value for value in row] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise SourceError(f"{path}: expected a 4x4 matrix of numbers ({error})") from error
    if not np.all(np.isfinite(T)) or not np.any(T[:3, :3]):
        return None
    try:
        return SE3.from_matrix(T)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error


def _read_split(file: Path, folders: dict[int, Path], records: list[FrameRecord]) -> list[int]:
    """Indices of the records of the listed sequences; ``sequence1``, ``seq-01`` and ``1`` mean the same."""
    chosen: set[str] = set()
    for line, text in read_lines(file):
        match = re.fullmatch(r"(?:sequence|seq)?[-_ ]*(\d+)", text, re.IGNORECASE)
        if match is None:
            raise SourceError(
                f"{file}:{line}: expected a sequence like 'sequence1' or 'seq-01', got {text!r}"
            )
        if int(match[1]) not in folders:
            raise SourceError(f"{file}:{line}: {text!r} has no folder seq-{int(match[1]):02d}")
        chosen.add(folders[int(match[1])].name)
    if not chosen:
        raise SourceError(f"{file}: expected sequences like 'sequence1', one a line; it has none")
    return [index for index, record in enumerate(records) if record.sequence in chosen]
