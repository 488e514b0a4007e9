"""A COLMAP model, text or binary, with its images: ``sparse/0``, ``sparse`` or the folder itself, beside
``images``.

The model has no time: images are in the natural order of their names (2 before 10), 30 a second, a folder of images
is a sequence.
Poses have the scale of the model, which is metric only if it was made so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localizer_ros.core.files import natural_key
from localizer_ros.core.se3 import SE3
from localizer_ros.core.signals import take_back_sigterm
from localizer_ros.core.types import ConfigError, SourceError
from localizer_ros.datasets.calibration import camera_from_colmap
from localizer_ros.datasets.colmap_files import check_model
from localizer_ros.datasets.folder import FolderSource, ImageFile
from localizer_ros.datasets.invented_times import invented_ns
from localizer_ros.datasets.source import FrameRecord, choose_camera

_IMAGE_FOLDERS = ("images", "../images", "../../images", "rgb", ".")


def open_recording(path: Path, images: str | None = None, camera: str | None = None) -> FolderSource:
    """Open a model with its images; images without a pose in the model are not part of it.

    Args:
        path: the folder that holds the model (see the module).
        images: folder of the images, relative to ``path``; None looks for ``images`` beside the model.
        camera: only the images of this camera of the model (its number), or in this folder of images (``cam0``).

    Raises:
        SourceError: no model, damaged, an unknown camera model, or no images.
    """
    folder, model = _read_model(path)
    registered = sorted(
        (image for image in model.images.values() if image.has_pose),
        key=lambda image: natural_key(image.name),
    )
    if camera is not None:
        registered = _of_camera(path, registered, camera)
    if not registered:
        raise SourceError(f"{folder}: COLMAP model has no images with poses")
    root = _image_folder(path, images, registered[0].name)
    cameras = {}
    # A camera that took none of the images does not matter.
    for key in {image.camera_id for image in registered}:
        try:
            lens = model.cameras[key]
            cameras[key] = camera_from_colmap(lens.model.name, lens.width, lens.height, lens.params)
        except (KeyError, IndexError) as error:
            raise SourceError(f"{folder}: COLMAP model has no camera {key}, which its images name") from error
        except ConfigError as error:
            raise SourceError(f"{folder}: {error}") from error
    sequences: dict[str, list[Any]] = {}
    for image in registered:
        sequences.setdefault(image.name.rpartition("/")[0], []).append(image)
    frames = []
    for number, name in enumerate(sorted(sequences, key=natural_key)):
        for index, image in enumerate(sequences[name]):
            try:
                T_cam_map = SE3.from_matrix(image.cam_from_world().matrix())
            except ValueError as error:
                raise SourceError(f"{folder}: image {image.name}: {error}") from error
            stamp_ns = invented_ns(index, number)
            record = FrameRecord(image.name, name or path.resolve().name, stamp_ns, T_cam_map.inverse())
            frames.append(ImageFile(record, root / image.name, cameras[image.camera_id]))
    return FolderSource(path, "colmap", frames, "COLMAP model", stamps="invented")


def _of_camera(path: Path, images: list[Any], wanted: str) -> list[Any]:
    """The images of one camera, by its number or their folder."""
    by_name: dict[str, list[Any]] = {}
    for image in images:
        folder = image.name.rpartition("/")[0]
        for name in {str(image.camera_id), folder} - {""}:
            by_name.setdefault(name, []).append(image)
    return by_name[choose_camera(path, sorted(by_name, key=natural_key), wanted)]


def _read_model(path: Path) -> tuple[Path, Any]:
    """The folder of the model, and it as a ``pycolmap.Reconstruction``."""
    import pycolmap

    take_back_sigterm()

    folders = (path / at for at in ("sparse/0", "sparse", "."))
    folder = next(
        (f for f in folders if any((f / f"cameras.{kind}").is_file() for kind in ("bin", "txt"))), None
    )
    if folder is None:
        raise SourceError(
            f"{path}: no COLMAP model; expected cameras.bin or cameras.txt in sparse/0, sparse or here"
        )
    check_model(folder)
    try:
        return folder, pycolmap.Reconstruction(folder)
    except Exception as error:
        # pycolmap throws whatever its C++ threw.
        raise SourceError(
            f"{folder}: COLMAP model cannot be read ({' '.join(str(error).split())})"
        ) from error


def _image_folder(path: Path, wanted: str | None, first: str) -> Path:
    candidates = (wanted,) if wanted is not None else _IMAGE_FOLDERS
    for candidate in candidates:
        if (path / candidate / first).is_file():
            return path / candidate
    raise SourceError(f"{path}: image {first!r} not found; looked in {', '.join(candidates)}")
