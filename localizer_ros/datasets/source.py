"""Recordings behind one interface: a list of frame records, images read on demand."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from localizer_ros.core.files import like_it, natural_key, one_line_errors
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Camera, Frame, SourceError
from localizer_ros.core.words import did_you_mean

Stamps = Literal["recorded", "invented"]
"""``recorded``: stamps tell the time between two frames of a sequence, as the data has them or as the running frame
number of a camera of known rate (7-Scenes: 30 Hz). ``invented``: the data has no time (COLMAP, Cambridge); frames are
merely spaced evenly in their order, so that speeds, rates and everything per second mean nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameRecord:
    """What is known of a frame before its image is read.

    Attributes:
        name: unique within the source and stable, e.g. ``seq-01/frame-000000.color.jpg``.
        sequence: name of the continuous stretch of frames it belongs to; motion is only meaningful within one.
        stamp_ns: strictly increasing within a sequence, and over the whole source.
        T_map_cam: ground truth, None where there is none for this frame.
    """

    name: str
    sequence: str
    stamp_ns: int
    T_map_cam: SE3 | None


@dataclass(frozen=True, slots=True)
class FrameNames:
    """What the frames of a robot are called, as in its TF.

    Attributes:
        camera: optical frame of the images.
        base: the robot.
        odom: parent of the odometry.
    """

    camera: str = "camera"
    base: str = "base_link"
    odom: str = "odom"


class FrameSource(Protocol):
    """A recording.

    Attributes:
        path: where it lies.
        format: e.g. ``7scenes``, ``tum``, ``rosbag``, ``kitti``, ``simulated``.
        ground_truth: what the poses are, in words for reports (``KinectFusion``, ``none``).
        stamps: whether the times of the frames are the data's own, see ``Stamps``.
        camera: of the frames, at the images' size. Where a format has several (Cambridge, COLMAP) it is that
            of the first frame and ``Frame.camera`` is each frame's own.
        records: frames in order of time, sequence by sequence.
        odometry: external odometry ``T_odom_base`` when the recording has one (bags), else None.
        T_base_cam: camera on the robot when the recording knows it, else None.
        splits: names of the splits it has, e.g. ``("train", "test")``.
    """

    path: Path
    format: str
    ground_truth: str
    stamps: Stamps
    camera: Camera
    records: Sequence[FrameRecord]
    odometry: Trajectory | None
    T_base_cam: SE3 | None
    splits: Sequence[str]

    def read(self, index: int) -> Frame:
        """The frame of ``records[index]``. Raises SourceError naming the file when it cannot be read."""
        ...

    def split(self, name: str) -> FrameSource:
        """The part called ``name`` (``all`` = everything). Raises SourceError naming the splits there are."""
        ...


@dataclass(frozen=True, slots=True)
class _Format:
    module: str
    """Module of this package with a function ``open_recording(path, **options) -> FrameSource``."""
    folders: tuple[str, ...] = ()
    """Glob patterns in the folder, any of which makes it this format."""
    files: tuple[str, ...] = ()
    """Patterns of a path that is itself a file of this format."""
    hint: str = ""
    """What is looked for, where the patterns are too many to list."""

    def recognises(self, path: Path) -> bool:
        """Whether what lies there looks like this format."""
        if path.is_dir():
            return any(next(path.glob(pattern), None) is not None for pattern in self.folders)
        return any(path.match(pattern) for pattern in self.files)


IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_VIDEOS = tuple(
    f"*.{ending}" for name in ("mp4", "mov", "avi", "mkv", "webm", "m4v") for ending in (name, name.upper())
)
_IMAGES = tuple(f"*{ending}" for name in IMAGE_ENDINGS for ending in (name, name.upper()))

# In order of precedence: the first format whose files are found is taken.
FORMATS: dict[str, _Format] = {
    "rosbag": _Format("rosbag", ("metadata.yaml", "*.mcap", "*.db3", "*.bag"), ("*.mcap", "*.db3", "*.bag")),
    "simulated": _Format("simulated", ("world.yaml",), ("*.yaml", "*.yml")),
    "7scenes": _Format("seven_scenes", ("frame-*.color.*", "seq-*/frame-*.color.*")),
    "tum": _Format("tum", ("rgb.txt",)),
    "cambridge": _Format("cambridge", ("dataset_train.txt", "dataset_test.txt")),
    "kapture": _Format("kapture", ("sensors/sensors.txt",)),
    "kitti": _Format("kitti", ("sequences/*/times.txt", "times.txt")),
    "colmap": _Format(
        "colmap",
        tuple(f"{at}cameras.{kind}" for at in ("sparse/0/", "sparse/", "") for kind in ("bin", "txt")),
    ),
    "euroc": _Format("euroc", ("mav0/cam*/data.csv", "cam*/data.csv")),
    "transforms": _Format(
        "transforms_json", ("transforms.json", "transforms_train.json"), ("transforms*.json",)
    ),
    "video": _Format("video", (), _VIDEOS, "a video file, e.g. .mp4"),
    "several": _Format("several", hint="a folder of recordings"),
    "images": _Format(
        "image_folder", (*_IMAGES, *(f"*/{each}" for each in _IMAGES)), hint="image files, e.g. .jpg"
    ),
}


def open_source(path: Path | str, format: str | None = None, **options: object) -> FrameSource:
    """Open a recording.

    Args:
        path: folder or file.
        format: a key of ``FORMATS``; None recognises it from the files.
        options: of the format, e.g. ``topics`` of a bag (see the module of the format).

    Raises:
        SourceError: nothing there, no known format (the message lists what was looked for), or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path}: does not exist{like_it(path)}")
    if format is None:
        format = recognise(path)
    elif format not in FORMATS:
        guess = did_you_mean(format, FORMATS)
        raise SourceError(f"{path}: unknown format {format!r}{guess}; known: {', '.join(FORMATS)}")
    module = importlib.import_module(f"localizer_ros.datasets.{FORMATS[format].module}")
    opener = cast("Callable[..., FrameSource]", module.open_recording)
    if "camera" in options and "camera" not in inspect.signature(opener).parameters:
        raise SourceError(
            f"{path}: a recording of the format {format} has one camera; there is none to choose"
        )
    with one_line_errors(path, format):
        return opener(path, **options)


def recognise(path: Path) -> str:
    """The format of a recording, a key of ``FORMATS``. Raises SourceError listing what was looked for."""
    for name, known in FORMATS.items():
        # Pictures may lie beside anything; only what nothing else knows is a folder of images.
        if name != "images" and known.recognises(path):
            return name
    images = FORMATS["images"].recognises(path)
    if path.is_dir() and not any(is_image(file) for file in path.iterdir()) and recordings_in(path):
        return "several"
    if images:
        return "images"
    if (path / "scene.yaml").is_file():
        raise SourceError(f"{path}: is a scene, expected a recording")
    patterns = {name: known.folders if path.is_dir() else known.files for name, known in FORMATS.items()}
    looked_for = "; ".join(
        f"{name}: {FORMATS[name].hint or ' or '.join(each)}"
        for name, each in patterns.items()
        if each or FORMATS[name].hint
    )
    raise SourceError(f"{path}: no known recording here; looked for {looked_for}")


def is_image(file: Path) -> bool:
    """Whether its name is that of an image file."""
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")


def recordings_in(folder: Path) -> list[Path]:
    """The folders, bags and videos in a folder that are recordings by themselves, in natural order."""
    by_folder = [known for name, known in FORMATS.items() if name not in ("images", "several")]
    by_file = [FORMATS["rosbag"], FORMATS["video"]]
    found = [
        each
        for each in folder.iterdir()
        if not each.name.startswith(".")
        and any(known.recognises(each) for known in (by_folder if each.is_dir() else by_file))
    ]
    return sorted(found, key=natural_key)


def frame_names(source: FrameSource) -> FrameNames:
    """What a recording calls its frames; the defaults for formats that have no names for them."""
    names = getattr(source, "frames", None)
    return names if isinstance(names, FrameNames) else FrameNames()


def choose_camera(path: Path, known: Sequence[str], wanted: str | None, usual: Sequence[str] = ()) -> str:
    """The camera to read, of those that a recording has.

    Args:
        path: the recording, for messages.
        known: the cameras.
        wanted: the one asked for, None when nobody did.
        usual: taken where nobody did: the first of them that is there.

    Raises:
        SourceError: it has not the one asked for, or several, and none is usual.
    """
    if wanted is not None:
        if wanted not in known:
            raise SourceError(
                f"{path}: no camera {wanted!r}{did_you_mean(wanted, known)}; it has {', '.join(known) or 'none'}"
            )
        return wanted
    for camera in usual:
        if camera in known:
            return camera
    if len(known) != 1:
        raise SourceError(
            f"{path}: has {len(known)} cameras ({', '.join(known) or 'none'}); choose one, e.g. --topic "
            f"camera={known[0] if known else 'NAME'}"
        )
    return known[0]


def split_error(path: Path, name: str, splits: Sequence[str]) -> SourceError:
    """The error of asking for a split that is not there."""
    if splits:
        guess = did_you_mean(name, splits)
        return SourceError(f"{path}: has no split {name!r}{guess}; it has {', '.join([*splits, 'all'])}")
    return SourceError(
        f"{path}: has no split {name!r}, only 'all'; use --split all, or list the image names of the part, "
        f"one a line, in splits/{name}.txt"
    )


def camera_problem(source: FrameSource) -> str | None:
    """Why the camera of a recording is not known, so that a guess stands in its place; None where it is known."""
    problem = getattr(source, "camera_problem", None)
    return problem if isinstance(problem, str) else None


def guessed_cameras(source: FrameSource) -> Mapping[str, Camera]:
    """The cameras that are guesses, by the names of their frames; of joined recordings some may be known."""
    guessed = getattr(source, "guessed_cameras", None)
    if isinstance(guessed, dict):
        return guessed
    return {} if camera_problem(source) is None else {record.name: source.camera for record in source.records}


def require_camera(source: FrameSource) -> None:
    """Raise SourceError where the camera of a recording is a guess: nothing that is measured with it would be right."""
    if problem := camera_problem(source):
        raise SourceError(f"{source.path}: {problem}")


def check_order(path: Path, records: Sequence[FrameRecord]) -> None:
    """Raise SourceError unless names are unique and stamps are 64-bit numbers that strictly increase."""
    if not records:
        raise SourceError(f"{path}: no frames found")
    names: set[str] = set()
    previous: FrameRecord | None = None
    for record in records:
        if record.name in names:
            raise SourceError(f"{path}: frame {record.name} is listed twice")
        names.add(record.name)
        if not -(2**63) <= record.stamp_ns < 2**63:
            raise SourceError(f"{path}: frame {record.name}: 64 bits do not hold its stamp")
        if previous is not None and record.stamp_ns <= previous.stamp_ns:
            raise SourceError(
                f"{path}: stamps must increase, but frame {record.name} ({record.stamp_ns} ns) follows "
                f"{previous.name} ({previous.stamp_ns} ns)"
            )
        previous = record


# So many frames are tried before a recording counts as unreadable.
_TRIED = 8


def check_readable(source: FrameSource) -> None:
    """Read one frame: a calibration of another image size is the likeliest mistake, and is found here.

    One broken frame is only that; the error of the first is raised where none of several can be read.

    Raises:
        SourceError: see above.
    """
    first: SourceError | None = None
    count = len(source.records)
    for index in sorted({round(i * (count - 1) / (_TRIED - 1)) for i in range(_TRIED)}):
        try:
            source.read(index)
            return
        except SourceError as error:
            first = first or error
    if first is not None:
        raise first


def broken_frames(source: FrameSource) -> Mapping[str, str]:
    """The frames known to be unusable, and why: cut, damaged, of another size than the camera."""
    broken = getattr(source, "broken", None)
    return broken if isinstance(broken, dict) else {}


def by_sequence(records: Sequence[FrameRecord]) -> dict[str, list[FrameRecord]]:
    """The records of each sequence, in order."""
    parts: dict[str, list[FrameRecord]] = {}
    for record in records:
        parts.setdefault(record.sequence, []).append(record)
    return parts


def indices_of_names(
    records: Sequence[FrameRecord], names: Mapping[str, str], what: str = "image"
) -> list[int]:
    """Indices, in order of time, of the named records.

    Args:
        records: all of them.
        names: name -> where it was written (``file:line``).
        what: noun for the error.

    Raises:
        SourceError: a name that no record has, with its ``file:line``.
    """
    position = {record.name: index for index, record in enumerate(records)}
    for name, where in names.items():
        if name not in position:
            raise SourceError(f"{where}: {what} {name!r} is not in the recording")
    return sorted(position[name] for name in names)
