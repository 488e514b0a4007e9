"""What all folders of image files share: reading, cameras, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localizer_ros.core.files import is_there, natural_key, read_bytes, read_text
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, FrameRejected, SourceError, UInt8
from localizer_ros.datasets.calibration import read_camera_yaml
from localizer_ros.datasets.images import check_size, decode_compressed, file_size_px
from localizer_ros.datasets.source import (
    FrameRecord,
    Stamps,
    check_order,
    check_readable,
    indices_of_names,
    split_error,
)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """A frame of a recording of image files.

    Attributes:
        record: what is known of it.
        file: its image.
        camera: that took it, None where the format knows none.
    """

    record: FrameRecord
    file: Path
    camera: Camera | None


INVENTED_NOTE = "stamps.txt"
"""File that says ``invented`` where a converted recording had no times of its own."""

# (width, height), None where the header does not tell, or why the file cannot be used.
_Size = tuple[int, int] | FrameRejected | SourceError | None
# Of the longer side of an image.
_GUESSED_FOCAL = 0.85
UNKNOWN_CAMERA = "the camera is not known; expected a ROS calibration {where}"


class FolderSource:
    """A recording of image files; a ``FrameSource``.

    A ``camera.yaml`` (ROS calibration) in the folder overrides the cameras the format knows; without either the camera
    is a guess, and ``camera_problem`` says so. Each ``splits/NAME.txt`` (record names, one a line) adds or replaces a
    split.

    Args:
        path: the folder.
        format: its name in ``FORMATS``.
        frames: all frames, in order of time.
        ground_truth: what the poses are, in words; a one-line ``ground_truth.txt`` in the folder knows better.
        stamps: whether the format has times.
        splits: indices of the format's own splits.

    Raises:
        SourceError: no frames, repeated names, stamps out of order, a damaged ``camera.yaml`` or split, a
            first image whose size is not the camera's.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        frames: Sequence[ImageFile],
        ground_truth: str,
        stamps: Stamps = "recorded",
        splits: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.path = path
        self.format = format
        self.stamps: Stamps = "invented" if _says_invented(path) else stamps
        self.odometry: Trajectory | None = None
        self.T_base_cam: SE3 | None = None
        self.records: Sequence[FrameRecord] = [frame.record for frame in frames]
        check_order(path, self.records)
        has_poses = any(record.T_map_cam is not None for record in self.records)
        note = path / "ground_truth.txt"
        notes = read_lines(note) if is_there(note) else []
        self.ground_truth = (notes[0][1] if notes else ground_truth) if has_poses else "none"
        self._files = [frame.file for frame in frames]
        sizes = [_size_or_fault(frame.file) for frame in frames]
        self.camera_problem: str | None = None
        self._cameras = self._known_cameras(frames, sizes)
        self.camera = self._cameras[0]
        own = sorted(path.glob("splits/*.txt"), key=natural_key)
        self._splits = {**(splits or {}), **{file.stem: _read_split(file, self.records) for file in own}}
        in_order = sorted(self._splits, key=lambda name: (name != "train", natural_key(name)))
        self.splits: Sequence[str] = tuple(in_order)
        self.broken = self._find_broken(sizes)
        self.pose_problem: str | None = None
        self.problems: Sequence[str] = ()
        check_readable(self)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        record, camera = self.records[index], self._cameras[index]
        image = read_image(self._files[index])
        try:
            check_size((image.shape[1], image.shape[0]), camera)
        except FrameRejected as error:
            raise SourceError(f"{self._files[index]}: {error}") from error
        return Frame(record.stamp_ns, image, camera, record.name)

    def _known_cameras(self, frames: Sequence[ImageFile], sizes: Sequence[_Size]) -> list[Camera]:
        """The camera of every frame; where nobody knows it, a guess of the commonest size of image."""
        calibration = self.path / "camera.yaml"
        if is_there(calibration):
            return [read_camera_yaml(calibration)] * len(frames)
        cameras = [frame.camera for frame in frames if frame.camera is not None]
        if len(cameras) == len(frames):
            return cameras
        self.camera_problem = UNKNOWN_CAMERA.format(where=calibration)
        if cameras:
            raise SourceError(f"{self.path}: {self.camera_problem}, or the cameras of all frames")
        known = Counter(size for size in sizes if isinstance(size, tuple))
        size = known.most_common(1)[0][0] if known else common_size([frame.file for frame in frames])
        return [guessed_camera(*size)] * len(frames)

    def _find_broken(self, sizes: Sequence[_Size]) -> dict[str, str]:
        """Frames whose image is missing, cut or of another size than the camera, by name, and why."""
        broken = {}
        for record, file, camera, size in zip(self.records, self._files, self._cameras, sizes, strict=True):
            try:
                if isinstance(size, FrameRejected):
                    raise size
                if isinstance(size, tuple):
                    check_size(size, camera)
                elif size is not None:
                    broken[record.name] = str(size)
            except FrameRejected as error:
                broken[record.name] = f"{file.name}: {error}"
        return broken

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


# Of a larger file only the two ends are read, which tell its size and whether it is whole.
_END_BYTES = 65_536


def _size_px(path: Path) -> tuple[int, int] | None:
    """See ``file_size_px``. Raises SourceError and FrameRejected."""
    if path.is_file() and path.stat().st_size > 4 * _END_BYTES:
        with path.open("rb") as file:
            head = file.read(_END_BYTES)
            file.seek(-_END_BYTES, 2)
            tail = file.read()
        try:
            return file_size_px(head + tail, ends_alone=True)
        except FrameRejected:
            # Headers larger than that, or something behind the end: the whole file says.
            pass
    return file_size_px(read_bytes(path, SourceError))


def _says_invented(folder: Path) -> bool:
    note = folder / INVENTED_NOTE
    return note.is_file() and [text for _, text in read_lines(note)][:1] == ["invented"]


def _size_or_fault(file: Path) -> _Size:
    """See ``_size_px``; what is wrong with the file in place of an exception."""
    try:
        return _size_px(file)
    except (FrameRejected, SourceError) as error:
        return error


def guessed_camera(width_px: int, height_px: int) -> Camera:
    """A camera to begin with where none is known: no distortion, 61 degrees along the longer side.

    Lenses of phones, webcams and robots' cameras have 55 to 75 degrees; structure from motion finds the rest.
    """
    focal_px = _GUESSED_FOCAL * max(width_px, height_px)
    return Camera.pinhole(
        width_px, height_px, focal_px, focal_px, 0.5 * (width_px - 1), 0.5 * (height_px - 1)
    )


def read_image(path: Path) -> UInt8:
    """(H, W, 3) RGB or (H, W) grey uint8. Raises SourceError naming the file."""
    try:
        return decode_compressed(read_bytes(path, SourceError))
    except FrameRejected as error:
        raise SourceError(f"{path}: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, by its header where that tells. Raises SourceError naming the file."""
    try:
        if (size_px := _size_px(path)) is not None:
            return size_px
    except FrameRejected as error:
        raise SourceError(f"{path}: {error}") from error
    height, width = read_image(path).shape[:2]
    return width, height


def common_size(files: Sequence[Path]) -> tuple[int, int]:
    """(width, height) of the first image that can be read. Raises SourceError of the first where none of eight can."""
    first: SourceError | None = None
    for file in files[:8]:
        try:
            return image_size(file)
        except SourceError as error:
            first = first or error
    raise first or SourceError("no images")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are neither empty nor comments (#).

    Raises:
        SourceError: the file cannot be read.
    """
    text = read_text(path, SourceError)
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _read_split(file: Path, records: Sequence[FrameRecord]) -> list[int]:
    names = {name: f"{file}:{number}" for number, name in read_lines(file)}
    if not names:
        raise SourceError(f"{file}: expected image names, one a line; it has none")
    return indices_of_names(records, names)
