"""A map of points on disk: of another format or with other settings, damaged, read back."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_to_dict, without_unknown
from localizer_ros.core.files import sha256_of
from localizer_ros.core.types import SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import from_bytes
from localizer_ros.localization.map_based.front_end import open_map_front_end
from localizer_ros.scene.bundle import MANIFEST, MAP_FOLDER, Scene
from localizer_ros.scene.point_map import ARRAYS, FORMAT, PointMap

SETTINGS = Path(MAP_FOLDER) / "point_map.yaml"


def changed(scene: Path, file: Path, change: dict[str, Any]) -> None:
    """Put values into a YAML file of a scene as another version would have written them."""
    values = yaml.safe_load((scene / file).read_text())
    (scene / file).write_text(yaml.safe_dump({**values, **change}))
    if file != Path(MANIFEST):
        manifest = yaml.safe_load((scene / MANIFEST).read_text())
        manifest["files"][str(file)] = sha256_of(scene / file)
        (scene / MANIFEST).write_text(yaml.safe_dump(manifest))


@pytest.fixture
def scene(tiny_map: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_map, tmp_path / "scene")


def test_another_format_is_named(scene: Path) -> None:
    changed(scene, SETTINGS, {"format": FORMAT + 1})
    with pytest.raises(SceneError, match=rf"point_map\.yaml: format {FORMAT + 1}, written by .*update"):
        PointMap.load(scene / "map")


def test_settings_of_another_version_are_ignored_and_named(
    scene: Path, tiny_source: FrameSource, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config_to_dict(PointMap.load(scene / "map").settings)
    settings["bundle"]["sharpness"] = 0.3
    settings["features"]["octaves"] = {"first": -1}
    settings["horizon"] = True
    changed(scene, SETTINGS, {"settings": settings})
    with caplog.at_level(logging.WARNING):
        front_end = open_map_front_end(scene, Scene.load(scene).method, LocalizerConfig())
    (record,) = caplog.records
    for name in ("bundle.sharpness", "features.octaves", "horizon", "another version"):
        assert name in record.getMessage()
    assert front_end.observe(tiny_source.read(20), None).absolute is not None
    front_end.close()


def test_a_value_of_another_version_is_an_error_that_names_it(scene: Path) -> None:
    settings = config_to_dict(PointMap.load(scene / "map").settings)
    settings["features"]["kind"] = "brisk"
    changed(scene, SETTINGS, {"settings": settings})
    with pytest.raises(SceneError, match=r"point_map\.yaml: features\.kind: expected .*brisk"):
        PointMap.load(scene / "map")


def test_an_impossible_camera_is_an_error_that_names_its_file(scene: Path) -> None:
    camera = yaml.safe_load((scene / SETTINGS).read_text())["camera"]
    camera["given"]["K"][0] *= -1.0
    changed(scene, SETTINGS, {"camera": camera})
    with pytest.raises(SceneError, match=r"point_map\.yaml: camera: expected a finite 3x3 K"):
        PointMap.load(scene / MAP_FOLDER)


def test_all_settings_of_this_version_are_known() -> None:
    values = config_to_dict(StructureConfig())
    assert without_unknown(StructureConfig, values) == (values, [])
    assert without_unknown(StructureConfig, [1]) == ([1], [])


def test_a_map_is_read_back_as_it_was_written(tiny_map: Path, tmp_path: Path) -> None:
    stored = PointMap.load(tiny_map / MAP_FOLDER)
    written = stored.save(tmp_path)
    again = PointMap.load(tmp_path)
    assert written == sum(file.stat().st_size for file in tmp_path.iterdir())
    for name in ("points", "observation_image", "observation_point", "descriptors", "T_map_refined"):
        assert np.array_equal(getattr(stored, name), getattr(again, name))
    # Keypoints are stored to a sixteenth of a pixel; once stored they stay.
    assert np.array_equal(stored.observation_xy_px, again.observation_xy_px)
    assert again.settings == stored.settings and again.names == stored.names


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("points", np.zeros((3, 2)), "array shapes do not fit together"),
        ("descriptors", np.zeros((1, 8), np.uint8), "array shapes do not fit together"),
        ("T_cam_refined", np.full((4, 4), np.nan), "T_cam_refined has values that are not finite"),
        ("T_cam_refined", np.ones((4, 4)), "does not fit its arrays"),
        ("points", np.full((3, 3), np.inf), "points has values that are not finite"),
        ("names", np.array([b"x"]), "names: expected numbers or text"),
        ("observation_point", None, "observation_point missing"),
    ],
)
def test_damaged_arrays_are_named(
    tiny_map: Path, tmp_path: Path, name: str, value: np.ndarray | None, message: str
) -> None:
    folder = shutil.copytree(tiny_map / MAP_FOLDER, tmp_path / "map")
    with np.load(folder / ARRAYS) as data:
        arrays = {key: data[key] for key in data.files}
    arrays[name] = value  # type: ignore[assignment]
    np.savez(folder / ARRAYS, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(SceneError, match=rf"point_map\.(npz|yaml): {message}"):
        PointMap.load(folder)


def test_an_observation_of_a_point_that_is_not_there_is_an_error(tiny_map: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_map / MAP_FOLDER, tmp_path / "map")
    with np.load(folder / ARRAYS) as data:
        arrays = {key: data[key] for key in data.files}
    arrays["observation_point"][5] = len(arrays["points"])
    np.savez(folder / ARRAYS, **arrays)
    with pytest.raises(SceneError, match="an image or a point that is not there"):
        PointMap.load(folder)


@pytest.mark.parametrize("signed", [False, True])
def test_descriptors_of_some_observations_are_those_of_all(
    tiny_map: Path, rng: np.random.Generator, signed: bool
) -> None:
    point_map = replace(PointMap.load(tiny_map / "map"), signed=signed)
    every = from_bytes(point_map.descriptors, signed)
    some = rng.integers(0, len(every), 5000)
    for rows in (some, slice(3, 9), np.zeros(0, np.intp)):
        np.testing.assert_array_equal(point_map.unit_descriptors(rows), every[rows])
