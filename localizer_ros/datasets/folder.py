"""What all folders of image files share: reading, cameras, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, FrameRejected, SourceError
from localizer_ros.datasets.calibration import read_camera_yaml
from localizer_ros.datasets.images import decode_compressed
from localizer_ros.datasets.source import FrameRecord, Stamps, check_order, indices_of_names, split_error


class FolderSource:
    """A recording of image files; a ``FrameSource``.

    A ``camera.yaml`` (ROS calibration) in the folder overrides the cameras the format knows, and each
    ``splits/NAME.txt`` (record names, one a line) adds or replaces a split.

    Args:
        path: the folder.
        format: its name in ``FORMATS``.
        ground_truth: what the poses are, in words; a one-line ``ground_truth.txt`` in the folder knows
            better.
        records: all frames, in order of time.
        files: image file of each record.
        camera: one for all frames, or one a frame; None when the format knows none: then ``camera.yaml`` is
            needed.
        splits: indices of the format's own splits.

    Raises:
        SourceError: no frames, repeated names, stamps out of order, no camera, a damaged ``camera.yaml`` or
            split, a first image whose size is not the camera's.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        ground_truth: str,
        records: Sequence[FrameRecord],
        files: Sequence[Path],
        camera: Camera | Sequence[Camera] | None,
        splits: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        check_order(path, records)
        self.path = path
        self.format = format
        self.records: Sequence[FrameRecord] = records
        has_poses = any(record.T_map_cam is not None for record in records)
        note = path / "ground_truth.txt"
        notes = read_lines(note) if note.is_file() else []
        self.ground_truth = (notes[0][1] if notes else ground_truth) if has_poses else "none"
        # A reader of a format without times says that it made them up.
        self.stamps: Stamps = "recorded"
        self.odometry: Trajectory | None = None
        self.T_base_cam: SE3 | None = None
        self._files = files
        calibration = path / "camera.yaml"
        if calibration.is_file():
            camera = read_camera_yaml(calibration)
        if camera is None:
            raise SourceError(
                f"{path}: the camera is not known; expected a ROS calibration camera.yaml in the folder"
            )
        self._cameras = [camera] * len(records) if isinstance(camera, Camera) else list(camera)
        self.camera = self._cameras[0]
        self._splits = {
            **(splits or {}),
            **{file.stem: _read_split(file, records) for file in sorted(path.glob("splits/*.txt"))},
        }
        self.splits: Sequence[str] = tuple(sorted(self._splits, key=lambda name: (name != "train", name)))
        # A calibration of another image size is the likeliest mistake: find it here, not during training.
        self.read(0)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        record, camera = self.records[index], self._cameras[index]
        image = read_image(self._files[index])
        if image.shape[:2] != (camera.height_px, camera.width_px):
            raise SourceError(
                f"{self._files[index]}: image is {image.shape[1]}x{image.shape[0]} but the camera is "
                f"{camera.width_px}x{camera.height_px}; expected a camera.yaml of the image's size"
            )
        return Frame(record.stamp_ns, image, camera, record.name)

    def split(self, name: str) -> FolderSource:
        """See ``FrameSource.split``; the part has no splits of its own."""
        if name == "all":
            return self
        if name not in self._splits:
            raise split_error(self.path, name, self.splits)
        indices = self._splits[name]
        part = object.__new__(FolderSource)
        part.__dict__.update(self.__dict__)
        part.records = [self.records[i] for i in indices]
        part._files = [self._files[i] for i in indices]
        part._cameras = [self._cameras[i] for i in indices]
        part._splits, part.splits = {}, ()
        return part


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB or (H, W) grey uint8. Raises SourceError naming the file."""
    try:
        return decode_compressed(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: image cannot be read ({error.strerror})") from error
    except FrameRejected as error:
        raise SourceError(f"{path}: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file. Raises SourceError naming the file."""
    height, width = read_image(path).shape[:2]
    return width, height


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are neither empty nor comments (#).

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _read_split(file: Path, records: Sequence[FrameRecord]) -> list[int]:
    names = {name: f"{file}:{number}" for number, name in read_lines(file)}
    if not names:
        raise SourceError(f"{file}: expected image names, one a line; it has none")
    return indices_of_names(records, names)
