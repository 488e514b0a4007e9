"""``transforms.json`` of nerfstudio, instant-ngp and the apps that write it: images, cameras and poses in one file.

Poses are camera to world with OpenGL's axes (y up, z back) and pixel centres at 0.5; here they become optical ones. The
world stays the file's, usually z up; an ``applied_scale`` is taken back. Intrinsics stand for all frames or at each.
There are no times: images stand in the order of the file. ``transforms_train.json``, ``transforms_test.json`` (Blender)
and ``train_filenames`` (nerfstudio) are splits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.files import natural_key, read_text
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, ConfigError, SourceError
from localizer_ros.datasets.folder import FolderSource, ImageFile, common_size
from localizer_ros.datasets.invented_times import invented_ns
from localizer_ros.datasets.source import IMAGE_ENDINGS, FrameRecord

# Optical axes in OpenGL's.
_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])
# Coefficients of each lens, in OpenCV's order.
_PLAIN = ("k1", "k2", "p1", "p2", "k3")
_RATIONAL = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
_MODELS = {
    "PERSPECTIVE": ("plumb_bob", ()),
    "PINHOLE": ("plumb_bob", ()),
    "SIMPLE_PINHOLE": ("plumb_bob", ()),
    "SIMPLE_RADIAL": ("plumb_bob", ("k1",)),
    "RADIAL": ("plumb_bob", ("k1", "k2")),
    "OPENCV": ("plumb_bob", _PLAIN),
    "FULL_OPENCV": ("rational_polynomial", _RATIONAL),
    "OPENCV_FISHEYE": ("equidistant", _FISHEYE),
    "FISHEYE": ("equidistant", _FISHEYE),
}


def open_recording(path: Path) -> FolderSource:
    """Open the file, or the folder that holds it.

    Raises:
        SourceError: not JSON, no frames, a malformed frame (its number is named), an unknown lens, or no intrinsics.
    """
    files = [path]
    if path.is_dir():
        files = [path / "transforms.json"]
        if not files[0].is_file():
            files = sorted(path.glob("transforms_*.json"), key=natural_key) or files
    folder = files[0].parent
    frames: dict[str, ImageFile] = {}
    splits: dict[str, list[str]] = {}
    for file in files:
        values = _read(file)
        part = file.stem.removeprefix("transforms_") if len(files) > 1 else ""
        names = []
        for image in _read_frames(file, values, folder, len(frames)):
            if image.record.name in frames:
                raise SourceError(f"{file}: image {image.record.name!r} is listed twice")
            frames[image.record.name] = image
            names.append(image.record.name)
        if part:
            splits[part] = names
        splits.update(_listed_splits(file, values, folder, frames))
    if not frames:
        raise SourceError(f"{files[0]}: has no frames")
    position = {name: index for index, name in enumerate(frames)}
    indices = {part: [position[name] for name in names] for part, names in splits.items()}
    source = FolderSource(folder, "transforms", list(frames.values()), "transforms.json", "invented", indices)
    source.path = path
    return source


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_text(file, SourceError))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}: cannot be read as JSON ({error or 'nested too deeply'})") from error
    if not isinstance(values, dict) or not isinstance(values.get("frames"), list):
        raise SourceError(f"{file}: expected an object with a list of 'frames', as nerfstudio writes it")
    return values


def _read_frames(file: Path, values: Mapping[str, Any], folder: Path, start: int) -> list[ImageFile]:
    """The frames of a file; the number of the first of them is ``start``."""
    scale = _number(str(file), "applied_scale", values.get("applied_scale", 1.0))
    if scale <= 0.0:
        raise SourceError(f"{file}: applied_scale: expected a positive number, got {scale:g}")
    frames: list[tuple[str, Path, SE3, Mapping[str, Any]]] = []
    for number, frame in enumerate(values["frames"]):
        where = f"{file}: frame {number}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise SourceError(f"{where}: expected 'file_path' and 'transform_matrix'")
        image = _image_file(folder, frame["file_path"])
        T_map_cam = _pose(where, frame.get("transform_matrix"), scale)
        frames.append((_name(folder, image), image, T_map_cam, frame))
    cameras = _cameras(file, values, [(image, frame) for _, image, _, frame in frames])
    return [
        ImageFile(FrameRecord(name, folder.resolve().name, invented_ns(start + i), T), image, camera)
        for i, ((name, image, T, _), camera) in enumerate(zip(frames, cameras, strict=True))
    ]


def _image_file(folder: Path, named: str) -> Path:
    """The image of a name, which Blender writes without its ending."""
    image = folder / named.replace("\\", "/")
    if image.suffix.lower() not in IMAGE_ENDINGS and not image.exists():
        for ending in (".png", *IMAGE_ENDINGS):
            if (candidate := image.with_name(image.name + ending)).exists():
                return candidate
    return image


def _name(folder: Path, image: Path) -> str:
    return str(image.relative_to(folder)) if image.is_relative_to(folder) else str(image)


def _pose(where: str, value: Any, scale: float) -> SE3:
    try:
        matrix = np.eye(4)
        rows = np.asarray(value, dtype=np.float64)
        if rows.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"got shape {rows.shape}")
        matrix[:3] = rows[:3]
        matrix[:3, 3] /= scale
        return SE3.from_matrix(matrix @ _OPTICAL)
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{where}: transform_matrix: expected a pose of 4x4 numbers ({error})") from error


# --- cameras ---


def _cameras(
    file: Path, values: Mapping[str, Any], frames: Sequence[tuple[Path, Mapping[str, Any]]]
) -> list[Camera | None]:
    """The camera of every frame: equal ones are one object, None where the file does not tell."""
    made: dict[str, Camera | None] = {}
    cameras: list[Camera | None] = []
    size: tuple[int, int] | None = None
    for number, (_, frame) in enumerate(frames):
        told = {key: frame.get(key, values.get(key)) for key in _KEYS}
        key = json.dumps(told, sort_keys=True, default=str)
        if key not in made:
            if (told["w"] is None or told["h"] is None) and size is None:
                size = common_size([image for image, _ in frames])
            made[key] = _camera(f"{file}: frame {number}", told, size)
        cameras.append(made[key])
    return cameras


_KEYS = (
    *("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y", "camera_model", "is_fisheye"),
    *dict.fromkeys((*_PLAIN, *_RATIONAL, *_FISHEYE)),
)


def _camera(where: str, told: Mapping[str, Any], size: tuple[int, int] | None) -> Camera | None:
    """A camera of the values that a file gives, None where it gives no focal length."""
    width, height = size or (0, 0)
    width = int(_number(where, "w", told["w"])) if told["w"] is not None else width
    height = int(_number(where, "h", told["h"])) if told["h"] is not None else height
    fx = _focal(where, told, "x", width)
    fy = _focal(where, told, "y", height)
    if fx is None and fy is None:
        return None
    fx, fy = fx or fy, fy or fx
    kind = str(told["camera_model"] or ("OPENCV_FISHEYE" if told["is_fisheye"] else "OPENCV")).upper()
    if kind not in _MODELS:
        raise SourceError(f"{where}: camera_model {kind} is not supported; supported: {', '.join(_MODELS)}")
    model, names = _MODELS[kind]
    D = np.array([_number(where, k, told[k]) if told[k] is not None else 0.0 for k in names])
    if model == "rational_polynomial" and not np.any(D[5:]):
        model, D = "plumb_bob", D[:5]
    cx = _number(where, "cx", told["cx"]) if told["cx"] is not None else 0.5 * width
    cy = _number(where, "cy", told["cy"]) if told["cy"] is not None else 0.5 * height
    K: Array = np.array([[fx, 0.0, cx - 0.5], [0.0, fy, cy - 0.5], [0.0, 0.0, 1.0]])
    try:
        return Camera(width, height, K, D if np.any(D) else np.zeros(0), model)
    except ConfigError as error:
        raise SourceError(f"{where}: {error}") from error


def _focal(where: str, told: Mapping[str, Any], axis: str, side_px: int) -> float | None:
    if told[f"fl_{axis}"] is not None:
        return _number(where, f"fl_{axis}", told[f"fl_{axis}"])
    if told[f"camera_angle_{axis}"] is None:
        return None
    angle = _number(where, f"camera_angle_{axis}", told[f"camera_angle_{axis}"])
    if not 0.0 < angle < np.pi:
        raise SourceError(f"{where}: camera_angle_{axis}: expected radians between 0 and pi, got {angle:g}")
    return 0.5 * side_px / float(np.tan(0.5 * angle))


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{where}: {name}: expected a number, got {str(value)[:40]!r}") from error
    if not np.isfinite(number):
        raise SourceError(f"{where}: {name}: expected a finite number")
    return number


# --- splits ---


def _listed_splits(
    file: Path, values: Mapping[str, Any], folder: Path, frames: Mapping[str, ImageFile]
) -> dict[str, list[str]]:
    """The splits that nerfstudio lists by the names of their images."""
    splits = {}
    for part in ("train", "val", "test"):
        listed = values.get(f"{part}_filenames")
        if not isinstance(listed, list) or not listed:
            continue
        wanted = {_name(folder, _image_file(folder, str(name))) for name in listed}
        if unknown := sorted(wanted - set(frames), key=natural_key):
            raise SourceError(f"{file}: {part}_filenames: no frame is called {unknown[0]!r}")
        splits[part] = [name for name in frames if name in wanted]
    return splits
