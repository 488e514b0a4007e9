"""KITTI odometry: ``sequences/NN/{image_0..3,times.txt,calib.txt}`` and ``poses/NN.txt``.

The path is the folder that holds ``sequences`` (all of them, one after the other) or one ``sequences/NN``.
Poses are of the left grey camera; those of the other cameras follow from their calibration.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from localizer_ros.core.files import is_there, natural_key
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import seconds_to_ns
from localizer_ros.core.types import Camera, ConfigError, SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile, common_size, read_lines
from localizer_ros.datasets.invented_times import BETWEEN_SEQUENCES_NS, sequence_numbers
from localizer_ros.datasets.source import FrameRecord, choose_camera

_CAMERAS = ("image_0", "image_1", "image_2", "image_3")


def open_recording(path: Path, camera: str | None = None) -> FolderSource:
    """Open all sequences of a folder, or one.

    Args:
        path: see the module.
        camera: ``image_0`` and ``image_1`` (grey, left and right), ``image_2`` and ``image_3`` (colour); None takes the
            left one, colour where it is.

    Raises:
        SourceError: files missing or malformed; the message names file and line.
    """
    path = path.resolve()
    if (path / "times.txt").is_file():
        folders = [path]
    else:
        folders = sorted((file.parent for file in path.glob("sequences/*/times.txt")), key=natural_key)
    if not folders:
        raise SourceError(f"{path}: expected sequences/NN/times.txt or times.txt")
    frames: list[ImageFile] = []
    problems: list[str] = []
    named = all(folder.name.isdecimal() for folder in folders)
    numbers = sequence_numbers([int(f.name) for f in folders]) if named else range(len(folders))
    for number, folder in zip(numbers, folders, strict=True):
        # Times of each sequence begin at zero.
        found, lines = _read_sequence(folder, _image_folder(folder, camera), number * BETWEEN_SEQUENCES_NS)
        frames.extend(found)
        if len(found) < lines:
            problems.append(
                f"{folder.name}: {lines - len(found)} of {lines} lines of times.txt have no image"
            )
    source = FolderSource(path, "kitti", frames, "KITTI (GPS and inertial)")
    source.problems = problems
    return source


def _read_sequence(folder: Path, kind: str, start_ns: int) -> tuple[list[ImageFile], int]:
    """The frames of one sequence, by the images of one camera (``image_0``, ``image_2``), and how many there are times
    for."""
    pictures = sorted(
        (file for file in (folder / kind).iterdir() if file.stem.isdigit() and file.suffix != ".txt"),
        key=natural_key,
    )
    if not pictures:
        raise SourceError(f"{folder / kind}: no images; expected NNNNNN.png")
    camera, T_cam0_cam = _read_calibration(folder / "calib.txt", "P" + kind[-1], common_size(pictures))
    times = _read_times(folder / "times.txt")
    pose_file = folder.parent.parent / "poses" / f"{folder.name}.txt"
    poses = _read_poses(pose_file)
    if poses and len(poses) != len(times):
        # Poses are told by their line alone: one line too few shifts all behind it.
        raise SourceError(
            f"{pose_file}: expected one pose a line of times.txt ({len(times)}), got {len(poses)}"
        )
    frames = []
    for file in pictures:
        index = int(file.stem)
        if index >= len(times):
            raise SourceError(f"{folder / 'times.txt'}: no line {index + 1} for image {file.name}")
        record = FrameRecord(
            name=f"{folder.name}/{kind}/{file.name}",
            sequence=folder.name,
            stamp_ns=start_ns + times[index],
            T_map_cam=poses[index] @ T_cam0_cam if index < len(poses) else None,
        )
        frames.append(ImageFile(record, file, camera))
    return frames, len(times)


def _image_folder(folder: Path, wanted: str | None) -> str:
    known = [name for name in _CAMERAS if (folder / name).is_dir()]
    if not known:
        raise SourceError(f"{folder}: expected a folder {' or '.join(_CAMERAS)}")
    return choose_camera(folder, known, wanted, ("image_2", "image_0", *known))


def _read_calibration(file: Path, key: str, size: tuple[int, int]) -> tuple[Camera, SE3]:
    """The rectified camera ``key`` (P0, P2), and its pose in camera 0."""
    for number, line in read_lines(file):
        name, _, values = line.partition(":")
        if name.strip() != key:
            continue
        try:
            P = np.array(values.split(), dtype=np.float64).reshape(3, 4)
            camera = Camera(*size, P[:, :3])
            # P = K [I | t] maps points of camera 0, so t is the origin of camera 0 in this camera.
            t_cam_cam0 = np.linalg.solve(camera.K, P[:, 3])
        except (ValueError, np.linalg.LinAlgError, ConfigError) as error:
            raise SourceError(f"{file}:{number}: expected '{key}:' and 12 numbers ({error})") from error
        if not np.all(np.isfinite(t_cam_cam0)):
            raise SourceError(f"{file}:{number}: expected '{key}:' and 12 finite numbers")
        return camera, SE3(np.eye(3), -np.asarray(t_cam_cam0, np.float64))
    raise SourceError(f"{file}: expected a line '{key}: ...'")


def _read_times(file: Path) -> list[int]:
    """Nanoseconds of every frame."""
    times = []
    for number, text in read_lines(file):
        try:
            times.append(seconds_to_ns(text))
        except ValueError as error:
            raise SourceError(f"{file}:{number}: expected seconds, got {text!r}") from error
    return times


def _read_poses(file: Path) -> list[SE3]:
    """``T_map_cam0`` of every frame; empty where the sequence has no ground truth."""
    if not is_there(file):
        return []
    poses = []
    for number, line in read_lines(file):
        try:
            poses.append(SE3.from_matrix(np.array(line.split(), dtype=np.float64).reshape(3, 4)))
        except ValueError as error:
            raise SourceError(f"{file}:{number}: expected 12 numbers of a pose ({error})") from error
    return poses
