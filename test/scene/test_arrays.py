"""Arrays on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.types import SceneError
from localizer_ros.scene.arrays import full_poses, load_arrays, save_arrays


def test_arrays_are_read_back_and_others_ignored(tmp_path: Path) -> None:
    path = tmp_path / "new" / "arrays.npz"
    written = save_arrays(path, a=np.arange(5), name=np.array("kitchen"), other=np.zeros(3))
    assert written == path.stat().st_size
    arrays = load_arrays(path, ("a", "name"))
    assert set(arrays) == {"a", "name"} and str(arrays["name"]) == "kitchen"
    poses = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(full_poses(poses)[:, :3], poses)
    assert np.array_equal(full_poses(poses)[:, 3], [[0, 0, 0, 1]] * 2)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "arrays.npz"
    save_arrays(path, a=np.arange(500), b=np.arange(500))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SceneError, match=r"arrays\.npz: cannot be read"):
        load_arrays(path, ("a", "b"))


def test_every_kind_of_damage_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=500))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(200):
        damaged = content.copy()
        damaged[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_arrays(path, ("a",))
        except SceneError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, a=np.array([{"key": 1}], dtype=object))
    with pytest.raises(SceneError, match=r"arrays\.npz: cannot be read"):
        load_arrays(path, ("a",))
    with pytest.raises(SceneError, match=r"none\.npz: cannot be read"):
        load_arrays(tmp_path / "none.npz", ())
