"""A scene folder: its format, whole or not there, every file of it checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localizer_ros import __version__
from localizer_ros.core.types import SceneError
from localizer_ros.scene.bundle import FORMAT_VERSION, MANIFEST, Scene, check_free, write_scene


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (FORMAT_VERSION + 1, "update localizer_ros"),
        (FORMAT_VERSION - 1, "map the recording again"),
        (None, "is missing"),
        ("new", "is missing"),
    ],
)
def test_another_format_is_named_whatever_else_is_wrong(tmp_path: Path, found: object, expected: str) -> None:
    # Everything else of it is different, too: that must not be what the user reads.
    (tmp_path / MANIFEST).write_text(
        yaml.safe_dump({"format_version": found, "versions": {"localizer_ros": "7.8.9"}, "files": 3})
    )
    with pytest.raises(SceneError, match=expected) as caught:
        Scene.load(tmp_path)
    assert MANIFEST in str(caught.value)
    if isinstance(found, int):
        assert f"format_version {found}, written by localizer_ros 7.8.9" in str(caught.value)
        assert f"{__version__}, which reads format_version {FORMAT_VERSION}" in str(caught.value)


MANIFEST_VALUES: dict[str, Any] = {"method": "posenet", "map_frame": "map", "camera": {}, "training": {}}


def written(path: Path, overwrite: bool = False) -> Path:
    """A scene of one file."""
    with write_scene(path, MANIFEST_VALUES, overwrite) as folder:
        (folder / "map").mkdir()
        (folder / "map" / "points").write_bytes(b"points")
        (folder / "engines").mkdir()
        (folder / "engines" / "cache").write_bytes(b"cache")
    return path


def test_a_written_scene_loads_and_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "scene")
    scene = Scene.load(path)
    assert (scene.method, scene.map_frame) == ("posenet", "map")
    assert list(scene.manifest["files"]) == ["map/points"]
    # The cache is no part of it.
    shutil.rmtree(path / "engines")
    Scene.load(path)
    (path / "map" / "points").write_bytes(b"others")
    with pytest.raises(SceneError, match="map/points: has changed since the scene was made"):
        Scene.load(path)
    (path / "map" / "points").unlink()
    with pytest.raises(SceneError, match="map/points: is missing"):
        Scene.load(path)
    with pytest.raises(SceneError, match="no such scene"):
        Scene.load(tmp_path / "none")


def test_an_interrupted_scene_is_not_there_and_an_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_scene(tmp_path / "scene", MANIFEST_VALUES) as folder:
        (folder / "half").write_bytes(b"")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    path = written(tmp_path / "scene")
    with pytest.raises(SceneError, match="exists already; use --overwrite"):
        check_free(path, overwrite=False)
    with pytest.raises(KeyboardInterrupt), write_scene(path, MANIFEST_VALUES, overwrite=True):
        raise KeyboardInterrupt
    assert Scene.load(path).method == "posenet"
    assert Scene.load(written(path, overwrite=True)).method == "posenet"
    (tmp_path / "mine").mkdir()
    with pytest.raises(SceneError, match="is not a scene; nothing is overwritten"):
        check_free(tmp_path / "mine", overwrite=True)


def test_a_scene_that_cannot_be_replaced_is_told_before_the_work(
    tmp_path: Path, lock: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "scene")
    before = sorted(tmp_path.rglob("*"))
    # One folder in it is enough: what is left of a scene would be in the way of the next.
    lock(path / "map")
    with pytest.raises(
        SceneError, match=rf"^{path}/map: cannot be written \(Read-only .*, or give another --out$"
    ):
        check_free(path, overwrite=True)
    lock(path)
    with pytest.raises(SceneError, match=rf"^{path}: cannot be written \(Read-only"):
        check_free(path, overwrite=True)
    monkeypatch.setattr(Path, "is_mount", lambda folder: folder == path)
    with pytest.raises(SceneError, match=rf"^{path}: is where a disk is mounted"):
        check_free(path, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_a_scene_is_replaced_and_the_scene_stays(tmp_path: Path) -> None:
    there = written(tmp_path / "there")
    link = tmp_path / "scene"
    link.symlink_to(there)
    # The second time, too: nothing of the first is in the way.
    for _ in range(2):
        written(link, overwrite=True)
    assert Scene.load(link) and Scene.load(there) and not link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene", "there"]
    lost = tmp_path / "lost"
    lost.symlink_to(tmp_path / "none")
    with pytest.raises(SceneError, match="lost: is a link to nothing"):
        check_free(lost, overwrite=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("camera", None, "camera is missing"),
        ("files", [1], "files is not as it was written"),
        ("method", 3, "method is not as it was written"),
    ],
)
def test_a_damaged_manifest_is_named_with_its_key(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = written(tmp_path / "scene")
    values = yaml.safe_load((path / MANIFEST).read_text())
    values[key] = value
    if value is None:
        del values[key]
    (path / MANIFEST).write_text(yaml.safe_dump(values))
    with pytest.raises(SceneError, match=rf"scene\.yaml: {message}"):
        Scene.load(path)


def test_a_scene_of_no_files_or_of_others_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "scene")
    # What file browsers leave, the cache, and networks that `localizer export` adds are no fault.
    (path / ".DS_Store").write_bytes(b"")
    (path / "networks").mkdir()
    (path / "networks" / "posenet.int8.onnx").write_bytes(b"")
    Scene.load(path)
    (path / "networks" / "posenet.onnx").write_bytes(b"")
    with pytest.raises(SceneError, match=r"networks/posenet\.onnx: is no file of the scene"):
        Scene.load(path)
    (path / "networks" / "posenet.onnx").unlink()
    values = yaml.safe_load((path / MANIFEST).read_text())
    for files, message in (({}, "files is empty"), ({"../other": "00"}, "is no name of a file in the scene")):
        (path / MANIFEST).write_text(yaml.safe_dump({**values, "files": files}))
        with pytest.raises(SceneError, match=message):
            Scene.load(path)
