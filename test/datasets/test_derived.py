"""Recordings made of others: poses from elsewhere, and the first frames only."""

from __future__ import annotations

import numpy as np
import pytest
from bag_recorder import Recorder, pictures, stamp

from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.derived import FirstFrames, SourceWithPoses
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.source import FrameSource, frame_names, open_source


def test_frames_within_the_trajectory_get_its_poses(tiny_source: FrameSource) -> None:
    stamps = [record.stamp_ns for record in tiny_source.records]
    # Every third stamp from the fourth to the tenth frame; in between is interpolated, outside is left out.
    trajectory = Trajectory(
        np.array(stamps[3:11:3]), tuple(SE3.exp([0, 0, 0.1 * i, 1.0 * i, 0, 0]) for i in range(3))
    )
    source = SourceWithPoses(tiny_source, Trajectory(trajectory.stamps_ns, trajectory.poses), "elsewhere")
    # Frames are 125 ms apart, so poses 375 ms apart are too far to interpolate: only the exact stamps remain.
    assert [r.stamp_ns for r in source.records] == stamps[3:11:3]
    assert source.ground_truth == "elsewhere"
    for record, pose in zip(source.records, trajectory.poses, strict=True):
        assert record.T_map_cam is pose
    np.testing.assert_array_equal(source.read(1).image, tiny_source.read(6).image)
    assert source.read(1).stamp_ns == stamps[6]


def test_a_trajectory_of_another_time_is_an_error(tiny_source: FrameSource) -> None:
    with pytest.raises(SourceError, match="covers none"):
        SourceWithPoses(tiny_source, Trajectory(np.array([1, 2]), (SE3.identity(), SE3.identity())), "old")


def test_first_frames(tiny_source: FrameSource) -> None:
    source = FirstFrames(tiny_source, 5)
    assert len(source.records) == 5 and len(source.split("all").records) == 5
    np.testing.assert_array_equal(source.read(4).image, tiny_source.read(4).image)


def test_what_is_known_of_the_recording_stays_known(recorder: Recorder, rng: np.random.Generator) -> None:
    recorder.info("/cam/camera_info", 64, 48)
    for position, index in enumerate((0, 2, 1)):
        log_ns = stamp(5 + position)
        recorder.image("/cam/image_raw", stamp(index), pictures(rng)[0], "rgb8", log_ns, frame="eye")
    source = open_source(recorder.close())
    trajectory = Trajectory.from_items((stamp(index), SE3.identity()) for index in range(3))
    for derived in (FirstFrames(source, 2), SourceWithPoses(source, trajectory, "elsewhere")):
        facts = recording_info(derived)
        assert facts["problems"][0] == "stamps go back 1 times: frames are sorted"
        assert facts["topics"]["image"] == "/cam/image_raw"
        assert frame_names(derived).camera == "eye"
