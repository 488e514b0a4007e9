"""Cambridge Landmarks: ``dataset_train.txt`` and ``dataset_test.txt``, image and ``X Y Z W P Q R`` a line.

X Y Z is the camera centre, W P Q R the rotation from world to camera. Every image has its own focal length,
read from ``reconstruction.nvm``; ``camera.yaml`` replaces them all. The radial distortion of the NVM file
(one small coefficient of VisualSFM's inverse model) is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from localizer_ros.core.files import is_there, natural_key
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile, common_size, read_lines
from localizer_ros.datasets.invented_times import invented_ns
from localizer_ros.datasets.source import FrameRecord

# Frames were taken from videos at 2 Hz.
_PERIOD_NS = 500_000_000
# The NVM file is of the original images; smaller copies have proportionally smaller focal lengths.
_ORIGINAL_SIDE_PX = 1920


def open_recording(path: Path) -> FolderSource:
    """Open a scene.

    Raises:
        SourceError: a malformed line (file and line are named), or no focal lengths.
    """
    entries: dict[str, tuple[str, SE3]] = {}
    for split in ("train", "test"):
        listing = path / f"dataset_{split}.txt"
        if not is_there(listing):
            continue
        for number, line in read_lines(listing):
            fields = line.split()
            # Three lines of heading in words.
            if number <= 3 and (len(fields) != 8 or not _is_number(fields[1])):
                continue
            try:
                name, *text = fields
                x, y, z, qw, qx, qy, qz = (float(value) for value in text)
                R_cam_map = SE3.from_unit_quaternion(np.zeros(3), [qx, qy, qz, qw]).R
                T_map_cam = SE3.from_matrix(np.column_stack([R_cam_map.T, [x, y, z]]))
            except ValueError as error:
                raise SourceError(f"{listing}:{number}: expected 'image X Y Z W P Q R' ({error})") from error
            if name in entries:
                raise SourceError(f"{listing}:{number}: image {name!r} is listed twice")
            entries[name] = split, T_map_cam
        if not any(found == split for found, _ in entries.values()):
            raise SourceError(f"{listing}: lists no images")
    if not entries:
        raise SourceError(f"{path}: no images listed in dataset_train.txt or dataset_test.txt")

    sequences = sorted({name.rpartition("/")[0] for name in entries}, key=natural_key)
    names = sorted(entries, key=lambda name: (sequences.index(name.rpartition("/")[0]), natural_key(name)))
    cameras = _cameras(path, names)
    frames = []
    last_ns = -1
    for name, camera in zip(names, cameras, strict=True):
        folder, _, file = name.rpartition("/")
        digits = re.findall(r"\d+", file)
        number = int(digits[-1]) if digits else 0
        stamp_ns = invented_ns(number, sequences.index(folder), _PERIOD_NS)
        last_ns = max(stamp_ns, last_ns + 1)
        record = FrameRecord(name, folder or path.resolve().name, last_ns, entries[name][1])
        frames.append(ImageFile(record, path / name, camera))
    splits = {
        split: [i for i, name in enumerate(names) if entries[name][0] == split]
        for split in ("train", "test")
        if any(entries[name][0] == split for name in names)
    }
    what = "structure from motion (VisualSFM)"
    return FolderSource(path, "cambridge", frames, what, stamps="invented", splits=splits)


def _cameras(path: Path, names: list[str]) -> Sequence[Camera | None]:
    """The camera of every image, None where ``camera.yaml`` tells it or nothing does."""
    nvm = path / "reconstruction.nvm"
    if is_there(path / "camera.yaml") or not is_there(nvm):
        return [None] * len(names)
    focal = _read_focal_lengths(nvm)
    width, height = common_size([path / name for name in names])
    scale = max(width, height) / _ORIGINAL_SIDE_PX
    cameras = []
    for name in names:
        # The NVM file names the original JPEG files.
        f = focal.get(name.rpartition(".")[0])
        if f is None:
            raise SourceError(f"{nvm}: has no focal length of image {name!r}; expected one, or a camera.yaml")
        cameras.append(
            Camera.pinhole(width, height, f * scale, f * scale, 0.5 * (width - 1), 0.5 * (height - 1))
        )
    return cameras


def _read_focal_lengths(nvm: Path) -> dict[str, float]:
    """Focal length in pixels of every image, by name without extension."""
    lines = read_lines(nvm)
    try:
        if not lines[0][1].startswith("NVM_V3"):
            raise ValueError("no NVM_V3 heading")
        count = int(lines[1][1])
        focal = {}
        for _, line in lines[2 : 2 + count]:
            name, f = line.split()[:2]
            focal[name.replace("\\", "/").rpartition(".")[0]] = float(f)
    except (ValueError, IndexError) as error:
        raise SourceError(f"{nvm}: expected an NVM_V3 file of VisualSFM ({error})") from error
    return focal


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
