"""`localizer view` of what was localised in a map: points, mapping cameras and the trajectory in one picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import ConfigError, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.replay import replay
from localizer_ros.evaluation.result_content import read_content
from localizer_ros.evaluation.view import picture, view
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.scene.bundle import Scene
from localizer_ros.scene.point_map import PointMap


@pytest.fixture(scope="module")
def scene(tiny_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene that may go away."""
    return shutil.copytree(tiny_map, tmp_path_factory.mktemp("scenes") / "room")


@pytest.fixture(scope="module")
def answers(scene: Path, tiny_source: FrameSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replayed recording."""
    out = tmp_path_factory.mktemp("view") / "answers"
    config = RunConfig()
    localizer = open_localizer(scene, config)
    replay(localizer, Scene.load(scene), tiny_source, out, config)
    localizer.close()
    return out


def test_a_replayed_bag_is_shown_over_its_map(scene: Path, answers: Path) -> None:
    content, structure = read_content(answers), PointMap.load(scene / "map")
    assert content.points is not None and len(content.points) == len(structure.points)
    assert len(content.mapping) == len(structure.names)
    assert len(content.trajectories["localizer"]) > 20
    for ax in picture(content).axes:
        labels = ax.get_legend_handles_labels()[1]
        assert {"mapping images", "localizer"} < set(labels) and any("map points" in name for name in labels)
        (points,) = (c for c in ax.collections if isinstance(c, PathCollection))
        assert len(points.get_offsets()) == len(structure.points)
        cameras = [c for c in ax.collections if isinstance(c, LineCollection)]
        assert len(cameras[0].get_segments()) == len(structure.names)


def test_a_wedge_points_where_its_camera_looks(scene: Path) -> None:
    content = read_content(scene)
    top = picture(content).axes[0]
    (cameras,) = (c for c in top.collections if isinstance(c, LineCollection))
    for segment, T in zip(cameras.get_segments(), content.mapping, strict=True):
        apex, left, right, _ = segment
        ahead = 0.5 * (left + right) - apex
        assert np.allclose(apex, T.t[:2])
        assert np.allclose(ahead / np.linalg.norm(ahead), T.R[:2, 2] / np.linalg.norm(T.R[:2, 2]), atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".rrd"])
def test_a_picture_or_a_recording_is_written(answers: Path, tmp_path: Path, suffix: str) -> None:
    written = view(answers, tmp_path / "new" / f"view{suffix}")
    assert written is not None and written.stat().st_size > 1000


def test_other_files_are_refused(answers: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png or \.rrd"):
        view(answers, tmp_path / "x.gif")


def test_without_a_display_a_picture_is_written_here(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert view(answers) == Path("answers.png")
    image = matplotlib.image.imread(tmp_path / "answers.png")
    assert image.shape[0] > 400 and image[..., :3].std() > 0.02  # something is drawn


def test_a_scene_that_has_gone_leaves_the_trajectory_and_another_can_be_named(
    scene: Path, answers: Path, tmp_path: Path, tiny_source: FrameSource
) -> None:
    moved = scene.rename(scene.with_name("elsewhere"))
    try:
        assert read_content(answers).points is None
        assert read_content(answers, moved).points is not None
        poses = ((r.stamp_ns, r.T_map_cam) for r in tiny_source.records if r.T_map_cam is not None)
        Trajectory.from_items(poses).write_tum(tmp_path / "t.txt")
        assert read_content(tmp_path / "t.txt", moved).mapping
        with pytest.raises(SceneError, match="no such scene"):
            read_content(answers, scene)
    finally:
        moved.rename(scene)
