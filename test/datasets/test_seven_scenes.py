"""7-Scenes: poses, splits, lost tracks, the camera of the Kinect."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import CAMERA, assert_pose, picture

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.source import open_source, require_camera


def test_seven_scenes(seven_scenes):
    root, poses = seven_scenes
    source = open_source(root)
    assert (source.format, source.ground_truth, source.splits) == (
        "7scenes",
        "KinectFusion",
        ("train", "test"),
    )
    assert source.camera.same_as(CAMERA)
    assert [record.name for record in source.records] == sorted(poses)
    for record in source.records:
        # The projection removes the perturbation of the rotation but for its own size.
        assert_pose(record.T_map_cam, poses[record.name], atol=5e-3)
        np.testing.assert_allclose(record.T_map_cam.R @ record.T_map_cam.R.T, np.eye(3), atol=1e-12)
    # Sequence number times 10 000 s, then 30 Hz.
    assert source.records[5].stamp_ns == 20_000_000_000_000 + round(1e9 / 30)
    assert source.stamps == "recorded"
    frame = source.read(5)
    assert (frame.name, frame.stamp_ns) == (source.records[5].name, source.records[5].stamp_ns)
    np.testing.assert_array_equal(frame.image, picture(21))

    train, test = source.split("train"), source.split("test")
    assert {record.sequence for record in train.records} == {"seq-01", "seq-10"}
    assert {record.sequence for record in test.records} == {"seq-02"}
    np.testing.assert_array_equal(test.read(0).image, picture(20))
    assert source.split("all") is source
    with pytest.raises(SourceError, match="train, test, all"):
        source.split("validation")


def test_seven_scenes_as_one_folder(seven_scenes):
    root, _ = seven_scenes
    write_camera_yaml(root / "seq-02" / "camera.yaml", CAMERA)
    source = open_source(root / "seq-02")
    assert [record.name for record in source.records] == [f"frame-{i:06d}.color.png" for i in range(4)]
    assert source.splits == ()
    with pytest.raises(SourceError, match=r"splits/train\.txt"):
        source.split("train")


@pytest.mark.parametrize("value", ["nan", "inf", "-1.#IND", "0"])
def test_lost_track_is_unknown_never_identity(seven_scenes, value):
    root, _ = seven_scenes
    (root / "seq-01" / "frame-000001.pose.txt").write_text(
        "\n".join([f"{value} {value} {value} {value}"] * 4)
    )
    records = open_source(root).records
    assert records[1].T_map_cam is None
    assert records[0].T_map_cam is not None


def test_default_camera_only_for_kinect_images(seven_scenes):
    root, _ = seven_scenes
    (root / "camera.yaml").unlink()
    with pytest.raises(SourceError, match=r"camera\.yaml"):
        require_camera(open_source(root))
