"""The check of a recording tells good ones from bad ones."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from small_recordings import Changed

from localizer_ros.core.types import Camera
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import open_source
from localizer_ros.evaluation.recording_check import recording_facts


@pytest.fixture(scope="module")
def source():
    return SimulatedSource(WorldConfig(width_px=320, height_px=240, duration_s=12.0, fps=10.0, noise=1.0))


def test_a_good_recording(source):
    facts = recording_facts(source)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["problems"] == []
    assert facts["capture"]["pose_check_pairs"] >= 4
    assert facts["capture"]["epipolar_error_px"] < 1.0


def test_poses_the_wrong_way_around_are_recognised(source):
    records = [dataclasses.replace(r, T_map_cam=r.T_map_cam.inverse()) for r in source.records]
    (problem,) = recording_facts(Changed(source, records))["problems"]
    assert "world to camera" in problem


def test_wrong_calibration_and_shifted_stamps_are_noticed(source):
    # The focal length of a camera with twice the field of view.
    camera = Camera.pinhole(320, 240, 100.0, 100.0, 159.5, 119.5)
    assert any(
        "disagree" in problem for problem in recording_facts(Changed(source, camera=camera))["problems"]
    )
    # Poses half a second late.
    poses = [record.T_map_cam for record in source.records]
    late = [dataclasses.replace(r, T_map_cam=T) for r, T in zip(source.records[5:], poses, strict=False)]
    assert any("disagree" in problem for problem in recording_facts(Changed(source, late))["problems"])


def test_blur_and_darkness_are_noticed(source):
    blurred = Changed(source, image=lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 3))
    assert any("blurred" in problem for problem in recording_facts(blurred)["problems"])
    dark = Changed(source, image=lambda pixels: (pixels * 0.08).astype(np.uint8))
    assert any("dark" in problem for problem in recording_facts(dark)["problems"])


def test_without_poses_images_are_checked_all_the_same(source):
    records = [dataclasses.replace(r, T_map_cam=None) for r in source.records]
    facts = recording_facts(Changed(source, records))
    assert facts["capture"]["frames_checked"] == 24
    assert facts["capture"]["epipolar_error_px"] is None


@pytest.mark.parametrize("folder", ["redkitchen", "kitti_00"])
def test_real_recordings_fit_their_poses(shared_dir, folder):
    path = shared_dir / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the shared recording {folder}")
    summary = recording_facts(open_source(path))
    assert summary["problems"] == []
    assert summary["capture"]["epipolar_error_px"] < 2.0
