"""Arrays of a scene on disk: .npz files without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.files import check_regular
from localizer_ros.core.types import Array, SceneError

Arrays = dict[str, NDArray[Any]]


def load_arrays(path: Path, names: Sequence[str]) -> Arrays:
    """The arrays of an .npz file by name.

    Args:
        path: the file.
        names: of the arrays that it must hold.

    Raises:
        SceneError: it is missing or damaged, an array is missing, or a value is no number; names the file.
    """
    check_regular(path, SceneError)
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in names if name in data.files}
    # A damaged file raises whatever zipfile, zlib, the parser of headers or numpy happen to trip over.
    except Exception as error:
        raise SceneError(f"{path}: cannot be read ({_line(error)})") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SceneError(f"{path}: {', '.join(missing)} missing")
    for name, values in arrays.items():
        if values.dtype.kind not in "biufU":
            raise SceneError(f"{path}: {name}: expected numbers or text, got {values.dtype}")
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise SceneError(f"{path}: {name} has values that are not finite")
    return arrays


def save_arrays(path: Path, **arrays: Any) -> int:
    """Bytes written to an .npz file, whose folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path.stat().st_size


def full_poses(poses: NDArray[Any]) -> Array:
    """(N, 4, 4) homogeneous matrices of (N, 3, 4) stored ones."""
    full = np.tile(np.eye(4), (len(poses), 1, 1))
    full[:, :3] = poses
    return full


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
