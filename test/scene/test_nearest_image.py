"""The mapping image that looks most alike, by a network's descriptors and by an image index."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.scene.bundle import Scene
from localizer_ros.scene.nearest_image import (
    nearest_image_errors,
    open_baseline,
    read_baseline,
    save_baseline,
)


def test_the_nearest_image_is_one_beside_the_frame(tiny_map: Path, tiny_source: FrameSource) -> None:
    baseline = open_baseline(Scene.load(tiny_map), BackendConfig())
    assert baseline is not None and 10 < len(baseline.poses) <= len(tiny_source.records)
    for index in (0, 11, 25):
        truth = tiny_source.records[index].T_map_cam
        # Frames are 8 cm apart. More keypoints are described than are indexed, so that it need not be the frame itself.
        assert truth is not None
        assert truth.distance_to(baseline.poses[baseline.nearest(tiny_source.read(index))]) < 0.25


@pytest.mark.slow
def test_a_network_finds_a_view_beside_the_frame(tiny_scene: Path, tiny_source: FrameSource) -> None:
    baseline = open_baseline(Scene.load(tiny_scene), BackendConfig())
    assert baseline is not None
    found = baseline.poses[baseline.nearest(tiny_source.read(11))]
    truth = tiny_source.records[11].T_map_cam
    assert truth is not None and truth.angle_to(found) < 0.5


def test_a_scene_without_images_has_no_baseline_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert open_baseline(Scene(tmp_path, {}), BackendConfig()) is None
    T = SE3.exp([0.1, 0.2, 0.3, 1.0, 2.0, 3.0])
    save_baseline(tmp_path, np.eye(2, dtype=np.float32), (T, SE3.identity()), ("a", "b"))
    descriptors, poses, names = read_baseline(tmp_path)
    assert names == ("a", "b") and poses[0].distance_to(T) < 1e-9 and np.array_equal(descriptors, np.eye(2))
    (tmp_path / "baseline.npz").write_bytes(b"nothing")
    with pytest.raises(SceneError, match=r"baseline\.npz"):
        read_baseline(tmp_path)


def test_an_image_is_looked_for_among_the_known_ones_alone() -> None:
    poses = [SE3.exp([0.0, 0.0, 0.1 * i, 1.0 * i, 0.0, 0.0]) for i in range(4)]
    descriptors = np.array([[1, 0], [0.9, 0.1], [0.1, 0.9], [0, 1]], dtype=np.float32)
    found = nearest_image_errors(descriptors, poses, np.array([0, 3]), np.array([1, 2]))
    np.testing.assert_allclose(
        [found["median_t_m"], found["median_r_deg"]], [1.0, np.degrees(0.1)], atol=0.05
    )
