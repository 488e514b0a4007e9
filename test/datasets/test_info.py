"""The summary of a recording, and the capture check that must tell good recordings from bad ones."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.info import info
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import open_source


class Changed:
    """A source with changed records or images."""

    def __init__(self, source, records=None, image=None, camera=None):
        self.__dict__.update(
            {
                name: getattr(source, name)
                for name in ("path", "format", "ground_truth", "odometry", "T_base_cam", "splits")
            }
        )
        self.records = records if records is not None else source.records
        self.camera = camera or source.camera
        self._position = {record.name: index for index, record in enumerate(source.records)}
        self._source, self._image = source, image or (lambda pixels: pixels)

    def read(self, index):
        frame = self._source.read(self._position[self.records[index].name])
        return Frame(frame.stamp_ns, self._image(frame.image), self.camera, frame.name)


@pytest.fixture(scope="module")
def source():
    return SimulatedSource(WorldConfig(width_px=320, height_px=240, duration_s=12.0, fps=10.0, noise=1.0))


def test_a_good_recording(source):
    summary = info(source)
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
    assert summary["capture"]["pose_check_pairs"] >= 4
    assert summary["capture"]["epipolar_error_px"] < 1.0


def test_coverage_tells_which_views_were_recorded(source):
    there = [dataclasses.replace(r, name=f"{i}", stamp_ns=i) for i, r in enumerate(source.records)]
    coverage = info(source, check_images=False)["coverage"]
    assert coverage["seen_both_ways"] == 0.0 and 15.0 <= coverage["headings_deg"] < 180.0
    # Back the way it came, looking the other way.
    about = SE3(np.diag([-1.0, 1.0, -1.0]), np.zeros(3))
    back = [
        dataclasses.replace(r, name=f"b{i}", stamp_ns=10**9 + i, T_map_cam=r.T_map_cam @ about)
        for i, r in enumerate(reversed(there))
    ]
    both = info(Changed(source, [*there, *back]), check_images=False)["coverage"]
    assert both["seen_both_ways"] == 1.0 and both["headings_deg"] > 1.5 * coverage["headings_deg"]
    nothing = [dataclasses.replace(r, T_map_cam=None) for r in there]
    assert info(Changed(source, nothing), check_images=False)["coverage"] is None


def test_of_a_bag_it_is_said_what_was_assumed(source, tmp_path):
    few = FirstFrames(source, 3)
    write_bag(few, tmp_path / "bag", compression="jpeg")
    summary = info(open_source(tmp_path / "bag"), check_images=False)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["frames"] == 3  # nothing of the format hides what all have
    assert summary["topics"]["image"] == "/camera/image_raw/compressed"
    assert (summary["images"], summary["images_taken_as"]) == ("compressed", "not rectified")
    assert summary["frame_ids"] == {"camera": "camera", "base": "base_link", "odom": "odom"}


def test_poses_the_wrong_way_around_are_recognised(source):
    records = [dataclasses.replace(r, T_map_cam=r.T_map_cam.inverse()) for r in source.records]
    (problem,) = info(Changed(source, records))["problems"]
    assert "world to camera" in problem


def test_wrong_calibration_and_shifted_stamps_are_noticed(source):
    # The focal length of a camera with twice the field of view.
    camera = Camera.pinhole(320, 240, 100.0, 100.0, 159.5, 119.5)
    assert any("disagree" in problem for problem in info(Changed(source, camera=camera))["problems"])
    # Poses half a second late.
    poses = [record.T_map_cam for record in source.records]
    late = [dataclasses.replace(r, T_map_cam=T) for r, T in zip(source.records[5:], poses, strict=False)]
    assert any("disagree" in problem for problem in info(Changed(source, late))["problems"])


def test_blur_darkness_gaps_missing_poses_and_jumps_are_noticed(source):
    blurred = Changed(source, image=lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 3))
    assert any("blurred" in problem for problem in info(blurred)["problems"])
    dark = Changed(source, image=lambda pixels: (pixels * 0.08).astype(np.uint8))
    assert any("dark" in problem for problem in info(dark)["problems"])

    with_gap = [*source.records[:40], *source.records[60:]]
    summary = info(Changed(source, with_gap), check_images=False)
    assert summary["gaps"] == [
        {"sequence": "drive-0", "after": "drive-0/000039", "seconds": pytest.approx(2.1)}
    ]
    assert summary["capture"] is None

    lost = [dataclasses.replace(r, T_map_cam=None) if i < 30 else r for i, r in enumerate(source.records)]
    assert "30 of 120 frames have no pose" in info(Changed(source, lost), check_images=False)["problems"]
    nothing = [dataclasses.replace(r, T_map_cam=None) for r in source.records]
    summary = info(Changed(source, nothing))
    assert summary["ground_truth"]["name"] == "none"
    assert summary["capture"]["epipolar_error_px"] is None
    assert "no ground truth" in summary["problems"][0]

    def moved(T):
        return dataclasses.replace(T, t=T.t + 3.0)

    jumped = [
        dataclasses.replace(r, T_map_cam=moved(r.T_map_cam)) if i >= 70 else r
        for i, r in enumerate(source.records)
    ]
    summary = info(Changed(source, jumped), check_images=False)
    assert [jump["at"] for jump in summary["ground_truth"]["jumps"]] == ["drive-0/000070"]


@pytest.mark.parametrize("folder", ["redkitchen", "kitti_00"])
def test_real_recordings_fit_their_poses(shared_dir, folder):
    path = shared_dir / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the shared recording {folder}")
    summary = info(open_source(path))
    assert summary["problems"] == []
    assert summary["capture"]["epipolar_error_px"] < 2.0
