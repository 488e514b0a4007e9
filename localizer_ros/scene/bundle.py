"""The scene: a folder with everything a localizer needs. Written whole or not at all, checked when read.

A scene is movable: it holds no absolute path. No pickle is ever written or read. ``engines/`` is a cache outside the
checksums and may be deleted.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from localizer_ros import __version__
from localizer_ros.core.files import inside_name, like_it, read_yaml, sha256_of, try_folder
from localizer_ros.core.types import Array, Camera, ConfigError, SceneError
from localizer_ros.inference.engine_cache import ENGINES

# Higher where this version would misread a scene of the one before. A setting that has gone needs no other format:
# it is ignored, and that is said.
FORMAT_VERSION = 3
MANIFEST = "scene.yaml"
# Folders of a scene.
MAP_FOLDER, INDEX_FOLDER, NETWORKS_FOLDER = "map", "index", "networks"
_LOWER_PRECISION = re.compile(rf"{NETWORKS_FOLDER}/[\w-]+\.(fp16|bf16|int8)\.(onnx|yaml)")


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene on disk whose files are all there and unchanged.

    Attributes:
        path: its folder.
        manifest: the content of ``scene.yaml``.
    """

    path: Path
    manifest: dict[str, Any]

    @staticmethod
    def load(path: Path) -> Scene:
        """The scene in a folder, every file of it checked.

        Raises:
            SceneError: not a scene, another format version, or a file is missing, has changed or has been added; names
                it.
        """
        manifest_path = manifest_file(path)
        manifest = read_yaml(manifest_path, SceneError)
        check_format(manifest_path, manifest, "format_version", FORMAT_VERSION)
        for key in ("method", "map_frame", "camera", "training", "files"):
            if key not in manifest:
                raise SceneError(f"{manifest_path}: {key} is missing")
        for key, kind in (
            ("method", str),
            ("map_frame", str),
            ("camera", dict),
            ("training", dict),
            ("files", dict),
        ):
            if not isinstance(manifest[key], kind):
                raise SceneError(f"{manifest_path}: {key} is not as it was written ({manifest[key]!r:.40})")
        _check_files(path, manifest["files"])
        return Scene(path, manifest)

    @property
    def method(self) -> str:
        """How it localises, e.g. ``posenet``."""
        return str(self.manifest["method"])

    @property
    def map_frame(self) -> str:
        """Name of the frame of all poses."""
        return str(self.manifest["map_frame"])

    @property
    def origin_m(self) -> Array:
        """(3,) origin of the scene's own coordinates in its map frame. All that is stored in a scene is relative to it,
        as single precision tells millimetres only near zero."""
        origin = self.manifest.get("origin_m", [0.0, 0.0, 0.0])
        try:
            found = np.array(origin, dtype=np.float64)
        except (TypeError, ValueError):
            found = np.zeros(0)
        if found.shape != (3,) or not np.all(np.isfinite(found)):
            raise SceneError(f"{self.path / MANIFEST}: origin_m: expected three numbers, got {origin!r:.60}")
        return found

    @property
    def camera(self) -> Camera:
        """The camera it was mapped with."""
        try:
            return Camera.from_dict(self.manifest["camera"])
        except ConfigError as error:
            raise SceneError(f"{self.path / MANIFEST}: {error}") from error


def _check_files(path: Path, listed: dict[Any, Any]) -> None:
    """Check that a scene has the files of its manifest, unchanged, and no others. Raises SceneError that names one."""
    if not listed:
        raise SceneError(f"{path / MANIFEST}: files is empty: a scene without content")
    for name, digest in listed.items():
        file = path / str(name)
        if inside_name(str(name)) != name:
            raise SceneError(f"{path / MANIFEST}: files: {name!r:.60} is no name of a file in the scene")
        if not file.is_file():
            raise SceneError(f"{file}: is missing from the scene")
        if sha256_of(file) != digest:
            raise SceneError(f"{file}: has changed since the scene was made")
    for file in _files_of(path):
        # Networks in lower precision are made later, by `localizer export`; their cards hold their checksums.
        if str(file) not in listed and file != Path(MANIFEST) and not _LOWER_PRECISION.fullmatch(str(file)):
            raise SceneError(f"{path / file}: is no file of the scene; take it out of the folder")


def _files_of(folder: Path) -> list[Path]:
    """Files in the folder of a scene, relative to it, without the cache and without hidden ones (of a file browser)."""
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [f for f in files if f.parts[0] != ENGINES and not any(part.startswith(".") for part in f.parts)]


def check_format(path: Path, values: Any, key: str, expected: int) -> None:
    """Check that a file of a scene has the format that this version reads.

    Args:
        path: of the file.
        values: what it holds.
        key: where its format stands.
        expected: the format.

    Raises:
        SceneError: it has another one; names both versions.
    """
    found = values.get(key) if isinstance(values, dict) else None
    if found == expected:
        return
    if not isinstance(found, int):
        raise SceneError(f"{path}: {key} is missing: damaged, or not written by localizer_ros")
    versions = values.get("versions")
    writer = versions.get("localizer_ros") if isinstance(versions, dict) else None
    help_ = "update localizer_ros" if found > expected else "map the recording again"
    raise SceneError(
        f"{path}: {key} {found}, written by localizer_ros {writer or 'of another version'}; this is localizer_ros "
        f"{__version__}, which reads {key} {expected}: {help_}"
    )


def manifest_file(path: Path) -> Path:
    """The manifest of the scene at a path. Raises SceneError where there is none."""
    if not path.exists():
        raise SceneError(f"{path}: no such scene{like_it(path)}")
    if not is_scene(path):
        raise SceneError(f"{path}: not a scene ({MANIFEST} is missing)")
    return path / MANIFEST


def is_scene(path: Path) -> bool:
    """True when the folder has a manifest."""
    return (path / MANIFEST).is_file()


def has_map(path: Path) -> bool:
    """True when the folder holds a map, of points or of posed images."""
    return (path / MAP_FOLDER / "point_map.npz").is_file()


@contextmanager
def write_scene(path: Path, manifest: dict[str, Any], overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill; on leaving without an error it becomes the scene ``path`` in one rename.

    Args:
        path: where the scene shall be.
        manifest: method, map_frame, camera, training, and whatever else the method records; may be filled in while
            the folder is open. Version, versions of libraries and checksums are added here.
        overwrite: replace a scene that is there already.

    Raises:
        SceneError: ``path`` exists and is not to be overwritten, or is not a scene.
    """
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.partial"
    # What a killed run left behind is of no use: what it may go on from lies elsewhere.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        files = [str(file) for file in _files_of(temporary)]
        full = {
            "format_version": FORMAT_VERSION,
            **manifest,
            "versions": library_versions(),
            "files": {name: sha256_of(temporary / name) for name in files},
        }
        with (temporary / MANIFEST).open("w") as file:
            yaml.safe_dump(full, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            old = path.parent / f".{path.name}.old"
            _remove(old)
            path.rename(old)
            temporary.rename(path)
            _remove(old)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove(path: Path) -> None:
    """Remove a scene that was replaced, or the link to it that was."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Check that a scene can be written to ``path``, before hours of work.

    Args:
        path: where the scene shall be.
        overwrite: a scene that is there may be replaced.

    Raises:
        SceneError: it cannot.
    """
    replaced = path.parent / f".{path.name}.old"
    if replaced.is_dir() and not path.exists():
        # Killed between the two renames of write_scene: the old scene is still the scene.
        replaced.rename(path)
    if not path.exists():
        if path.is_symlink():
            raise SceneError(f"{path}: is a link to nothing; remove it, or give another --out")
        return
    if not overwrite:
        raise SceneError(f"{path}: exists already; use --overwrite to replace it")
    if not is_scene(path):
        raise SceneError(f"{path}: exists and is not a scene; nothing is overwritten")
    if path.is_symlink():
        return
    if path.is_mount():
        raise SceneError(f"{path}: is where a disk is mounted and cannot be replaced; give a folder in it")
    for folder in (path, *path.rglob("*")):
        if folder.is_dir() and not folder.is_symlink():
            check_writable(folder, "give another --out")


def check_writable(folder: Path, instead: str) -> None:
    """Check that a folder of a scene can be written to, before hours of work; it is made where it is missing.

    Args:
        folder: the scene, or one in it.
        instead: what else can be done.

    Raises:
        SceneError: it cannot.
    """
    try:
        try_folder(folder)
    except OSError as error:
        raise SceneError(
            f"{folder}: cannot be written ({error.strerror}); change its permissions, or {instead}"
        ) from error


def library_versions() -> dict[str, str]:
    """Versions that matter for reproducing a result."""
    versions = {"localizer_ros": __version__}
    for name in ("numpy", "opencv-python-headless", "torch", "openvino", "gtsam", "pycolmap"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
