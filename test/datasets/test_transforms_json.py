"""transforms.json: OpenGL's axes, intrinsics for all or for each, splits, what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_recordings import assert_pose, picture, random_pose, write

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source, require_camera

OPENGL = SE3(np.diag([1.0, -1.0, -1.0]), np.zeros(3))
LENS = {"fl_x": 50.0, "fl_y": 51.0, "cx": 31.5, "cy": 25.0, "w": 64, "h": 48, "k1": 0.1, "p2": 0.002}


@pytest.fixture
def nerf(tmp_path, rng):
    """Three images and their file. Returns (folder, poses, contents)."""
    poses = [random_pose(rng) for _ in range(3)]
    frames = []
    for i, T in enumerate(poses):
        write(tmp_path / "images" / f"frame_{i:05d}.png", encode_png(picture(i)))
        matrix = (T @ OPENGL).matrix().tolist()
        frames.append({"file_path": f"./images/frame_{i:05d}.png", "transform_matrix": matrix})
    contents = {**LENS, "camera_model": "OPENCV", "ply_file_path": "sparse.ply", "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(contents))
    return tmp_path, poses, contents


def rewrite(path, contents, **changes):
    (path / "transforms.json").write_text(json.dumps({**contents, **changes}))


@pytest.mark.parametrize("at", ["", "transforms.json"])
def test_poses_are_optical_and_pixel_centres_whole(nerf, at):
    path, poses, _ = nerf
    source = open_source(path / at)
    assert (source.format, source.stamps, len(source.records)) == ("transforms", "invented", 3)
    for record, T in zip(source.records, poses, strict=True):
        assert_pose(record.T_map_cam, T)
    np.testing.assert_allclose(source.camera.K, [[50, 0, 31], [0, 51, 24.5], [0, 0, 1]])
    np.testing.assert_allclose(source.camera.distortion, [0.1, 0, 0, 0.002, 0])
    assert source.read(2).name == "images/frame_00002.png"


def test_every_frame_may_have_a_camera_of_its_own(nerf):
    path, _, contents = nerf
    frames = [{**frame, "fl_x": 50.0 + i} for i, frame in enumerate(contents["frames"])]
    rewrite(path, contents, frames=frames, fl_x=None)
    source = open_source(path)
    assert [source.read(i).camera.K[0, 0] for i in range(3)] == [50.0, 51.0, 52.0]


def test_an_opening_angle_and_the_size_of_the_images_will_do(nerf):
    path, _, contents = nerf
    rewrite(path, {"frames": contents["frames"], "camera_angle_x": 2 * np.arctan(32 / 50)})
    camera = open_source(path).camera
    np.testing.assert_allclose(camera.K, [[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])


@pytest.mark.parametrize(
    "told", [{"camera_model": "OPENCV_FISHEYE"}, {"camera_model": None, "is_fisheye": True}]
)
def test_fisheyes(nerf, told):
    path, _, contents = nerf
    rewrite(path, contents, k2=0.02, k3=0.03, k4=0.04, **told)
    camera = open_source(path).camera
    assert camera.model == "equidistant"
    np.testing.assert_allclose(camera.distortion, [0.1, 0.02, 0.03, 0.04])


def test_metres_come_back_from_an_applied_scale(nerf):
    path, poses, contents = nerf
    rewrite(path, contents, applied_scale=0.5)
    source = open_source(path)
    np.testing.assert_allclose(source.records[1].T_map_cam.t, 2.0 * poses[1].t)


def test_blender_has_a_file_for_each_split_and_no_endings(nerf):
    path, poses, contents = nerf
    (path / "transforms.json").unlink()
    for part, rows in (("train", (0, 2)), ("test", (1,))):
        frames = [dict(contents["frames"][i]) for i in rows]
        for frame in frames:
            frame["file_path"] = frame["file_path"].removesuffix(".png")
        (path / f"transforms_{part}.json").write_text(json.dumps({**LENS, "frames": frames}))
    source = open_source(path)
    assert source.splits == ("train", "test")
    assert_pose(source.split("test").records[0].T_map_cam, poses[1])
    assert len(source.split("train").records) == 2


def test_nerfstudio_lists_its_splits(nerf):
    path, _, contents = nerf
    rewrite(path, contents, train_filenames=["images/frame_00002.png", "./images/frame_00000.png"])
    names = [record.name for record in open_source(path).split("train").records]
    assert names == ["images/frame_00000.png", "images/frame_00002.png"]


def test_a_missing_image_costs_that_frame(nerf):
    path, *_ = nerf
    (path / "images" / "frame_00001.png").unlink()
    assert list(open_source(path).broken) == ["images/frame_00001.png"]


def test_without_a_focal_length_the_camera_is_not_known(nerf):
    path, _, contents = nerf
    rewrite(path, {"frames": contents["frames"]})
    with pytest.raises(SourceError, match="camera is not known"):
        require_camera(open_source(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 7}, "expected an object with a list of 'frames'"),
        ({"frames": []}, "has no frames"),
        ({"frames": [{"file_path": "a.png"}]}, "frame 0: transform_matrix: expected a pose"),
        (
            {"frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], [3]]}]},
            "frame 0: transform_matrix",
        ),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}]}, "frame 0: expected 'file_path'"),
        ({"fl_x": "wide"}, "fl_x: expected a number, got 'wide'"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR is not supported"),
        ({"applied_scale": 0}, "applied_scale: expected a positive number"),
        ({"test_filenames": ["x.png"]}, "test_filenames: no frame is called 'x.png'"),
    ],
)
def test_what_is_malformed_is_named(nerf, changes, message):
    path, _, contents = nerf
    rewrite(path, contents, **changes)
    with pytest.raises(SourceError, match=message):
        open_source(path)


def test_an_image_listed_twice_and_broken_json_are_refused(nerf):
    path, _, contents = nerf
    rewrite(path, contents, frames=contents["frames"] + contents["frames"][:1])
    with pytest.raises(SourceError, match="listed twice"):
        open_source(path)
    (path / "transforms.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read as JSON"):
        open_source(path)
