"""Masks keep moving things out of maps, and the robot itself out of maps and live frames."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from localizer_ros.core.config.mapping import MapConfig, MaskConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import Camera, ConfigError, Frame, SceneError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.features.local_features import LocalFeatures
from localizer_ros.features.masks import STATIC_MASK, RecordingMasks, read_mask, unmasked
from localizer_ros.mapping.build import build_scene
from localizer_ros.scene.map_scene import MapScene

WORLD = {"duration_s": 6.0, "fps": 5.0, "width_px": 240, "height_px": 180, "drive": 3}


def written(path: Path, used: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.where(used, 255, 0).astype(np.uint8))
    return path


def features_at(xy: Any) -> LocalFeatures:
    points = np.array(xy, dtype=np.float32)
    return LocalFeatures(points, np.ones((len(points), 4), np.float32), np.ones(len(points), dtype=bool))


def test_a_mask_drops_what_lies_on_zeros_or_next_to_them(tmp_path: Path) -> None:
    used = np.ones((100, 200), dtype=bool)
    used[60:, 50:150] = False
    mask = read_mask(written(tmp_path / "mask.png", used))
    camera = Camera.pinhole(200, 100, 100, 100, 100, 50)
    # Inside, on the edge, a margin of 1 % of the width away, further away, and at the image's corners.
    features = features_at([[100, 80], [49, 80], [47, 80], [100, 57], [0, 0], [199, 99]])
    assert unmasked(features, camera, mask).xy_px[:, 0].tolist() == [47, 100, 0, 199]
    # The same mask for an image of half the size.
    half = Camera.pinhole(100, 50, 50, 50, 50, 25)
    assert len(unmasked(features_at([[50, 40], [10, 10]]), half, mask)) == 1
    assert unmasked(features, camera, None) is features


def test_colours_count_as_used_and_what_is_no_mask_is_named(tmp_path: Path) -> None:
    colour = np.zeros((20, 20, 3), np.uint8)
    colour[:, 10:, 2] = 1
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    assert read_mask(tmp_path / "colour.png")[:, 11:].all()
    assert not read_mask(tmp_path / "colour.png")[:, :11].any()
    (tmp_path / "text.png").write_text("mask")
    for name, message in (("text.png", r"text\.png"), ("none.png", r"none\.png")):
        with pytest.raises(ConfigError, match=message):
            read_mask(tmp_path / name)
    with pytest.raises(ConfigError, match="ignores everything"):
        read_mask(written(tmp_path / "black.png", np.zeros((9, 9), dtype=bool)))


@pytest.fixture(scope="module")
def busy() -> SimulatedSource:
    return SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "moving_objects": 8}))


@pytest.fixture(scope="module")
def movers(
    busy: SimulatedSource, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder of masks, and where each frame shows something that moves."""
    folder = tmp_path_factory.mktemp("masks")
    still = SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "moving_objects": 0}))
    moving = {}
    for index, record in enumerate(busy.records):
        moving[record.name] = busy.render(index)[1] > 1.001 * still.render(index)[1] + 1e-6
        written(folder / f"{record.name}.png", ~moving[record.name])
    return folder, moving


@pytest.mark.slow
def test_a_masked_map_has_no_points_on_what_moves(
    busy: SimulatedSource, movers: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, moving = movers
    share = {}
    for name, masks in (("plain", {}), ("masked", {"folder": str(folder)})):
        structure = {"masks": masks, "retrieval": {"words": 16}}
        build_scene(busy, "all", config_from_dict(MapConfig, {"structure": structure}), tmp_path / name)
        s = MapScene.open(tmp_path / name).point_map
        column, row = np.rint(s.observation_xy_px).astype(int).T
        on_mover = [
            moving[s.names[image]][y, x] for image, y, x in zip(s.observation_image, row, column, strict=True)
        ]
        share[name] = float(np.mean(on_mover))
        assert len(s.points) > 200
    assert share["plain"] > 0.01
    assert share["masked"] == 0.0


@pytest.mark.slow
def test_masks_are_found_beside_the_recording_and_missing_ones_are_named(
    busy: SimulatedSource, movers: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    class Elsewhere:
        def __init__(self, path: Path) -> None:
            self.path, self.records = path, busy.records

    folder, _ = movers
    named = RecordingMasks(busy, MaskConfig(folder=str(folder)))
    assert len(named) == len(busy.records)
    (tmp_path / "recording").mkdir()
    beside = Elsewhere(tmp_path / "recording")
    assert len(RecordingMasks(beside, MaskConfig())) == 0  # type: ignore[arg-type]
    (tmp_path / "recording" / "masks").symlink_to(folder)
    assert len(RecordingMasks(beside, MaskConfig())) == len(busy.records)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no such folder"):
        RecordingMasks(busy, MaskConfig(folder=str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no mask of any frame; expected e\.g\. .*drive-3/000000\.png"):
        RecordingMasks(busy, MaskConfig(folder=str(tmp_path / "empty")))


@pytest.mark.slow
def test_a_static_mask_goes_with_the_scene_and_covers_live_frames(tmp_path: Path) -> None:
    source = SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "moving_objects": 0, "duration_s": 4.0}))
    used = np.ones((180, 240), dtype=bool)
    used[120:, 60:180] = False
    mask = written(tmp_path / "bumper.png", used)
    structure = {"masks": {"static": str(mask)}, "retrieval": {"words": 16}}
    config = config_from_dict(MapConfig, {"method": "local", "structure": structure})
    build_scene(source, "all", config, tmp_path / "scene")
    mask.unlink()
    scene = MapScene.open(tmp_path / "scene")
    # A sticker on the bumper: the best keypoints of the image, were they used.
    image = source.read(3).image.copy()
    image[125:175, 65:175] = np.kron(np.indices((5, 11)).sum(axis=0) % 2, np.ones((10, 10)))[:, :, None] * 255
    view = scene.view(Frame(0, image, source.camera), 500, fine=False)
    every = scene.extractor.extract(image, 500, False)
    for xy in (scene.point_map.observation_xy_px, view.features.xy_px):
        assert len(xy) > 50
        assert not ((xy[:, 1] > 120) & (xy[:, 0] > 60) & (xy[:, 0] < 180)).any()
    assert len(every) > len(view.features)
    (tmp_path / "scene" / STATIC_MASK).write_bytes(b"nothing")
    with pytest.raises(SceneError, match="static_mask"):
        MapScene.open(tmp_path / "scene")
