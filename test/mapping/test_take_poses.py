"""Which poses a recording is mapped with, and odometry whose drift is taken out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.progress import no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.derived import PosedSource
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.alignment import fit_similarity
from localizer_ros.mapping.odometry_poses import GROUND_TRUTH, carried, corrected_odometry, odometry_of_frames
from localizer_ros.mapping.take_poses import has_poses, take_poses


def hidden(source: FrameSource) -> PosedSource:
    """A recording without its poses."""
    return PosedSource(source, [None] * len(source.records), "none")


def test_true_poses_are_taken_as_they_are(tiny_source: FrameSource, tmp_path: Path) -> None:
    assert take_poses(tiny_source, StructureConfig(), None, tmp_path, no_progress) is tiny_source


def test_what_has_neither_poses_nor_odometry_is_told_what_to_give(
    tiny_source: FrameSource, tmp_path: Path
) -> None:
    bare = hidden(tiny_source)
    assert not has_poses(bare)
    bare.odometry = None
    with pytest.raises(SourceError, match="--length M"):
        take_poses(bare, StructureConfig(), None, tmp_path, no_progress)


def test_odometry_without_the_camera_on_the_robot_is_said(tiny_source: FrameSource) -> None:
    bare = hidden(tiny_source)
    bare.T_base_cam = None
    with pytest.raises(SourceError, match="where the camera sits on the robot"):
        odometry_of_frames(bare)


def test_frames_between_keyframes_follow_odometry_from_both() -> None:
    driven = [None, *(SE3(np.eye(3), np.array([float(i), 0.0, 0.0])) for i in range(5)), None]
    found = [SE3(np.eye(3), np.array([0.0, 0.0, 0.0])), SE3(np.eye(3), np.array([2.0, 0.2, 0.0]))]
    poses = carried(driven, [1, 3], found)
    assert poses[0] is None and poses[-1] is None
    assert [T.t.tolist() for T in poses[1:-1] if T is not None] == [
        [0.0, 0.0, 0.0],
        [1.0, 0.1, 0.0],
        [2.0, 0.2, 0.0],
        [3.0, 0.2, 0.0],
        [4.0, 0.2, 0.0],
    ]


@pytest.mark.slow
def test_images_take_the_drift_out_of_odometry(tmp_path: Path) -> None:
    world = {"duration_s": 12.0, "fps": 5.0, "width_px": 320, "height_px": 240, "odometry_noise": 4.0}
    source = SimulatedSource(config_from_dict(WorldConfig, world))
    truth = [r.T_map_cam for r in source.records if r.T_map_cam is not None]
    settings = {"features": {"max_keypoints": 800}, "retrieval": {"words": 16}}
    config = config_from_dict(StructureConfig, settings)
    found = corrected_odometry(hidden(source), config, tmp_path, no_progress)
    assert found.ground_truth == GROUND_TRUTH and found.keyframe_names
    driven = [T for T in odometry_of_frames(source) if T is not None]
    corrected = [r.T_map_cam for r in found.records if r.T_map_cam is not None]
    assert len(corrected) == len(truth)
    everything = range(len(truth))
    before_m, after_m = (fit_similarity(poses, everything, truth)[1] for poses in (driven, corrected))
    assert after_m < 0.5 * before_m and after_m < 0.02
