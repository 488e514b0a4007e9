"""Features of all frames are those of one camera, whichever took them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.progress import no_progress
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.derived import SomeFrames
from localizer_ros.datasets.source import FrameSource
from localizer_ros.features.local_features import LocalFeatures
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.mapping.build_point_map import build_point_map
from localizer_ros.mapping.feature_store import FeatureStore, seen_by
from localizer_ros.scene.map_scene import MapScene

SHIFT_PX = 14
CONFIG = {"features": {"max_keypoints": 400}, "keyframes": {"max_images": 12}, "retrieval": {"words": 16}}


class Cropped(SomeFrames):
    """A recording of which every other frame was taken by a camera that looks further to the right."""

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source, range(len(source.records)), source.records)

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        frame = super().read(index)
        if index % 2 == 0:
            return frame
        image = np.zeros_like(frame.image)
        image[:, :-SHIFT_PX] = frame.image[:, SHIFT_PX:]
        K = frame.camera.K.copy()
        K[0, 2] -= SHIFT_PX
        camera = Camera(frame.camera.width_px, frame.camera.height_px, K)
        return Frame(frame.stamp_ns, image, camera, frame.name, frame.T_base_cam)


def test_keypoints_are_where_the_recordings_camera_would_have_them(
    tiny_source: FrameSource, tmp_path: Path
) -> None:
    config = config_from_dict(StructureConfig, CONFIG)
    stores = [
        FeatureStore(source, config, tmp_path / name)
        for name, source in (("one", tiny_source), ("two", Cropped(tiny_source)))
    ]
    for store in stores:
        store.extract([4, 5], False, no_progress, "features")
    assert [store.several_cameras for store in stores] == [False, True]
    for index in (4, 5):
        one, two = (store.features(index, False).xy_px for store in stores)
        apart = np.linalg.norm(one[:, None] - two[None], axis=2).min(axis=0)
        assert np.mean(apart < 0.5) > 0.7


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(160, 120, 90.0, 95.0, 80.0, 61.0),
        Camera(
            160, 120, np.array([[90.0, 0, 80], [0, 95, 61], [0, 0, 1]]), np.array([-0.3, 0.1, 0.001, 0, 0])
        ),
        Camera(
            160,
            120,
            np.array([[70.0, 0, 80], [0, 70, 61], [0, 0, 1]]),
            np.array([0.1, 0.02, 0, 0]),
            "equidistant",
        ),
    ],
    ids=["pinhole", "distorted", "fisheye"],
)
def test_there_and_back_is_the_same_place(camera: Camera, rng: np.random.Generator) -> None:
    other = Camera.pinhole(160, 120, 120.0, 120.0, 79.5, 59.5)
    xy = rng.uniform((0, 0), (159, 119), (50, 2)).astype(np.float32)
    features = LocalFeatures(xy, np.eye(50, dtype=np.float32), np.ones(50, np.bool_))
    moved = seen_by(camera, other, features)
    assert len(moved) == 50
    np.testing.assert_allclose(seen_by(other, camera, moved).xy_px, xy, atol=0.02)


def test_what_the_other_camera_cannot_have_is_left_out() -> None:
    narrow = Camera(
        160, 120, np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]), np.array([-0.5, 0, 0, 0, 0])
    )
    wide = Camera.pinhole(160, 120, 40.0, 40.0, 79.5, 59.5)
    xy = np.array([[80.0, 60.0], [0.0, 0.0]], np.float32)
    moved = seen_by(narrow, wide, LocalFeatures(xy, np.eye(2, dtype=np.float32), np.ones(2, np.bool_)))
    assert len(moved) == 1


@pytest.mark.slow
def test_a_map_of_two_cameras_answers_both(tiny_source: FrameSource, tmp_path: Path) -> None:
    source, config = Cropped(tiny_source), config_from_dict(StructureConfig, CONFIG)
    report = build_point_map(source, config, tmp_path / "scene", tmp_path / "work")
    # Without minding the second camera there is no map at all; with one camera it is 209 points and 0.35 px.
    assert report.reprojection_error_px < 0.6 and report.points > 150
    localizer = HierarchicalLocalizer(MapScene.open(tmp_path / "scene"), SearchConfig())
    for index in range(3, 30, 5):
        answer = localizer.localize(source.read(index), None).answer
        true = source.records[index].T_map_cam
        assert answer is not None and true is not None and answer.T_map_cam.distance_to(true) < 0.05
