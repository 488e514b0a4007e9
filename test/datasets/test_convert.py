"""Recordings written in another format are the same recordings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_recordings import CAMERA, assert_pose, picture, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.convert import write_bag, write_kapture, write_tum
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.source import open_source


@pytest.mark.parametrize("writer", [write_tum, write_kapture])
def test_conversion_keeps_everything_a_format_can_hold(seven_scenes, tmp_path, writer):
    source = open_source(seven_scenes[0])
    calls = []
    writer(source, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 12) for i in range(12)]
    again = open_source(tmp_path / "out")
    assert (again.splits, again.ground_truth) == (("train", "test"), "KinectFusion")
    assert again.camera.same_as(source.camera, tolerance_px=1e-9)
    assert [r.stamp_ns for r in again.records] == [r.stamp_ns for r in source.records]
    for index, (record, original) in enumerate(zip(again.records, source.records, strict=True)):
        assert_pose(record.T_map_cam, original.T_map_cam, atol=1e-8)
        np.testing.assert_array_equal(again.read(index).image, source.read(index).image)
    original_test = [r.stamp_ns for r in source.split("test").records]
    assert [r.stamp_ns for r in again.split("test").records] == original_test
    # Nothing temporary stays, and nothing is overwritten.
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(SourceError, match="exists already"):
        writer(source, tmp_path / "out")


@pytest.mark.parametrize("writer", [write_tum, write_kapture, write_bag])
def test_stills_stay_stills_and_keep_their_names(tmp_path, writer):
    for name in ("b 10,5", "b 2"):
        write(tmp_path / "stills" / f"{name}.jpg", encode_jpeg(picture(1)))
    write_camera_yaml(tmp_path / "stills" / "camera.yaml", CAMERA)
    writer(open_source(tmp_path / "stills"), tmp_path / "out")
    again = open_source(tmp_path / "out")
    assert again.stamps == "invented"
    if writer is not write_bag:
        assert [record.name.removeprefix("rgb/") for record in again.records] == ["b_2.png", "b_10_5.png"]


def test_names_that_differ_in_their_ending_only_do_not_meet(tmp_path):
    for i, name in enumerate(("a.png", "a.jpg")):
        write(tmp_path / "stills" / name, encode_png(picture(i)))
    write_camera_yaml(tmp_path / "stills" / "camera.yaml", CAMERA)
    source = open_source(tmp_path / "stills")
    write_kapture(source, tmp_path / "out")
    again = open_source(tmp_path / "out")
    assert len(again.records) == 2
    np.testing.assert_array_equal(again.read(1).image, source.read(1).image)


def test_a_recording_of_two_cameras_is_not_written_as_one_of_one(tmp_path):
    for i in range(2):
        write(tmp_path / f"{i}.png", encode_png(picture(i)))
    frames = [
        {"file_path": f"{i}.png", "fl_x": 50 + i, "w": 64, "h": 48, "transform_matrix": np.eye(4).tolist()}
        for i in range(2)
    ]
    write(tmp_path / "transforms.json", json.dumps({"frames": frames}))
    for writer in (write_tum, write_kapture, write_bag):
        with pytest.raises(SourceError, match=r"1\.png has another camera, and the format holds only one"):
            writer(open_source(tmp_path), tmp_path / "out")


def test_broken_conversion_leaves_nothing(seven_scenes, tmp_path):
    root, _ = seven_scenes
    source = open_source(root)
    (root / "seq-10" / "frame-000003.color.png").write_bytes(b"")
    with pytest.raises(SourceError, match="empty"):
        write_tum(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kitchen"]


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(world, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(SourceError, match="exists already"):
        write_bag(world, tmp_path / "there")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bag(world, tmp_path / "bag", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("folder", ["../..", "{}/absolute", "a/../../.."])
def test_no_name_of_a_recording_leads_out_of_the_new_folder(tmp_path, folder):
    """Whoever made a recording names its images and sequences."""
    folder = folder.format(tmp_path)
    root = tmp_path / "in" / "deep" / "kapture" / "sensors"
    image = root / "records_data" / folder / "escaped.png"
    write(image, encode_png(picture(1)))
    write(root / "sensors.txt", "c, c, camera, SIMPLE_PINHOLE, 64, 48, 50, 32, 24\n")
    write(root / "records_camera.txt", f"100000000, c, {folder}/escaped.png\n")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "out" / "deep" / "new"
    for write_one in (write_kapture, write_tum, write_bag):
        write_one(open_source(root.parent), out / write_one.__name__)
    image.unlink()
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert new and all(path.is_relative_to(out) for path in new)
    assert len(open_source(out / "write_kapture").records) == 1
