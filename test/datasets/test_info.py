"""The summary of a recording by its records."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from small_recordings import Changed

from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import open_source


@pytest.fixture(scope="module")
def source():
    return SimulatedSource(WorldConfig(width_px=320, height_px=240, duration_s=12.0, fps=10.0, noise=1.0))


def test_a_good_recording(source):
    summary = recording_info(source)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["problems"] == []
    assert (summary["format"], summary["frames"], summary["sequences"]) == (
        "simulated",
        120,
        {"drive-0": 120},
    )
    assert summary["fps"] == pytest.approx(10.0)
    assert summary["duration_s"] == pytest.approx(11.9)
    assert summary["camera"]["horizontal_fov_deg"] == pytest.approx(75.0)
    truth = summary["ground_truth"]
    assert (truth["name"], truth["frames"], truth["jumps"]) == ("simulation (exact)", 120, [])
    positions = np.stack([record.T_map_cam.t for record in source.records])
    assert truth["path_length_m"] == pytest.approx(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    assert truth["extent_m"] == pytest.approx(np.ptp(positions, axis=0).tolist())
    assert summary["odometry"]["covariance_known"]
    assert summary["base_to_camera_known"]


def test_coverage_tells_which_views_were_recorded(source):
    there = [dataclasses.replace(r, name=f"{i}", stamp_ns=i) for i, r in enumerate(source.records)]
    coverage = recording_info(source)["coverage"]
    assert coverage["seen_both_ways"] == 0.0 and 15.0 <= coverage["headings_deg"] < 180.0
    # Back the way it came, looking the other way.
    about = SE3(np.diag([-1.0, 1.0, -1.0]), np.zeros(3))
    back = [
        dataclasses.replace(r, name=f"b{i}", stamp_ns=10**9 + i, T_map_cam=r.T_map_cam @ about)
        for i, r in enumerate(reversed(there))
    ]
    both = recording_info(Changed(source, [*there, *back]))["coverage"]
    assert both["seen_both_ways"] == 1.0 and both["headings_deg"] > 1.5 * coverage["headings_deg"]
    nothing = [dataclasses.replace(r, T_map_cam=None) for r in there]
    assert recording_info(Changed(source, nothing))["coverage"] is None


def test_of_a_bag_it_is_said_what_was_assumed(source, tmp_path):
    few = FirstFrames(source, 3)
    write_bag(few, tmp_path / "bag", compression="jpeg")
    summary = recording_info(open_source(tmp_path / "bag"))
    assert json.loads(json.dumps(summary)) == summary
    assert summary["frames"] == 3  # nothing of the format hides what all have
    assert summary["topics"]["image"] == "/camera/image_raw/compressed"
    assert (summary["images"], summary["images_taken_as"]) == ("compressed", "not rectified")
    assert summary["frame_ids"] == {"camera": "camera", "base": "base_link", "odom": "odom"}


def test_gaps_missing_poses_and_jumps_are_noticed(source):
    with_gap = [*source.records[:40], *source.records[60:]]
    summary = recording_info(Changed(source, with_gap))
    assert summary["gaps"] == [
        {"sequence": "drive-0", "after": "drive-0/000039", "seconds": pytest.approx(2.1)}
    ]

    lost = [dataclasses.replace(r, T_map_cam=None) if i < 30 else r for i, r in enumerate(source.records)]
    assert "30 of 120 frames have no pose" in recording_info(Changed(source, lost))["problems"]

    def moved(T):
        return dataclasses.replace(T, t=T.t + 3.0)

    jumped = [
        dataclasses.replace(r, T_map_cam=moved(r.T_map_cam)) if i >= 70 else r
        for i, r in enumerate(source.records)
    ]
    summary = recording_info(Changed(source, jumped))
    assert [jump["at"] for jump in summary["ground_truth"]["jumps"]] == ["drive-0/000070"]


def test_a_recording_without_poses_says_what_to_do(source):
    nothing = [dataclasses.replace(r, T_map_cam=None) for r in source.records]
    summary = recording_info(Changed(source, nothing))
    assert summary["ground_truth"]["name"] == "none"
    assert "no ground truth" in summary["problems"][0]
