"""Folders of images in every format: written small, read back, and spoiled one file at a time."""

from __future__ import annotations

import re

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, LocalizerError, SourceError
from localizer_ros.datasets.calibration import camera_from_colmap, camera_to_colmap, write_camera_yaml
from localizer_ros.datasets.convert import write_kapture, write_tum
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import FORMATS, open_source

CAMERA = Camera(
    64,
    48,
    np.array([[50.0, 0.0, 31.0], [0.0, 51.0, 24.5], [0.0, 0.0, 1.0]]),
    np.array([0.1, -0.05, 0.001, 0.002, 0.01]),
)


def random_pose(rng):
    return SE3.exp(rng.uniform(-2.0, 2.0, 6))


def picture(number, shape=(48, 64, 3)):
    return np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)


def assert_pose(T, expected, atol=1e-9):
    np.testing.assert_allclose(T.matrix(), expected.matrix(), atol=atol)


@pytest.fixture
def seven_scenes(tmp_path, rng):
    """Three sequences of four frames; frame 2 of the second has lost track. Returns (folder, poses)."""
    root = tmp_path / "kitchen"
    poses = {}
    for sequence in (1, 2, 10):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir(parents=True)
        for frame in range(4):
            T = random_pose(rng)
            # As in the originals, rotations are slightly off.
            matrix = T.matrix() + np.pad(1e-3 * rng.standard_normal((3, 3)), (0, 1))
            poses[f"seq-{sequence:02d}/frame-{frame:06d}.color.png"] = T
            np.savetxt(folder / f"frame-{frame:06d}.pose.txt", matrix)
            (folder / f"frame-{frame:06d}.color.png").write_bytes(encode_png(picture(10 * sequence + frame)))
    (root / "TrainSplit.txt").write_text("sequence1\nseq-10\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    write_camera_yaml(root / "camera.yaml", CAMERA)
    return root, poses


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
    # Sequence number times 1000 s, then 30 Hz.
    assert source.records[5].stamp_ns == 2_000_000_000_000 + round(1e9 / 30)
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


def test_ground_truth_note_and_own_splits(seven_scenes):
    root, _ = seven_scenes
    (root / "ground_truth.txt").write_text("SfM pseudo ground truth\n")
    (root / "splits").mkdir()
    (root / "splits" / "few.txt").write_text(
        "# two\nseq-02/frame-000003.color.png\nseq-01/frame-000000.color.png\n"
    )
    source = open_source(root)
    assert source.ground_truth == "SfM pseudo ground truth"
    few = source.split("few")
    # In order of time, whatever the order of the list.
    assert [record.name[:6] for record in few.records] == ["seq-01", "seq-02"]
    np.testing.assert_array_equal(few.read(1).image, picture(23))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("seq-01/frame-000000.pose.txt", "1 2 3", r"frame-000000\.pose\.txt: expected a 4x4"),
        ("seq-01/frame-000000.pose.txt", "1 0 0 x\n" * 4, r"frame-000000\.pose\.txt: expected a 4x4"),
        ("seq-01/frame-000000.pose.txt", "5 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "away from a rotation"),
        ("TrainSplit.txt", "sequence1\nsequence7\n", r"TrainSplit\.txt:2: 'sequence7' has no folder seq-07"),
        ("TestSplit.txt", "first\n", r"TestSplit\.txt:1: expected a sequence like"),
        (
            "splits/a.txt",
            "seq-01/frame-000000.color.png\nnone.png\n",
            r"a\.txt:2: image 'none\.png' is not in",
        ),
        ("splits/a.txt", "\n", r"a\.txt: expected image names"),
        ("camera.yaml", "image_width: 64", r"camera\.yaml: expected a ROS camera calibration"),
        ("camera.yaml", "[", r"camera\.yaml: cannot be read"),
        ("camera.yaml", b"\xff\xfe\x00", r"camera\.yaml: cannot be read"),
        ("seq-01/frame-000000.color.png", b"", r"frame-000000\.color\.png: compressed image is empty"),
        (
            "seq-01/frame-000000.color.png",
            encode_png(picture(1))[:100],
            r"frame-000000\.color\.png: .*cut off",
        ),
        (
            "seq-01/frame-000000.color.png",
            encode_png(picture(1)[:40]),
            r"frame-000000\.color\.png: image is 64x40",
        ),
    ],
)
def test_damage_is_named_in_one_line(seven_scenes, file, text, message):
    root, _ = seven_scenes
    write(root / file, text)
    with pytest.raises(LocalizerError, match=message) as caught:
        open_source(root)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SourceError)


def test_missing_image_is_named_when_read(seven_scenes):
    root, _ = seven_scenes
    source = open_source(root)
    (root / "seq-02" / "frame-000001.color.png").unlink()
    with pytest.raises(SourceError, match=r"seq-02/frame-000001\.color\.png: image cannot be read"):
        source.read(5)


def test_default_camera_only_for_kinect_images(seven_scenes):
    root, _ = seven_scenes
    (root / "camera.yaml").unlink()
    with pytest.raises(SourceError, match=r"camera\.yaml"):
        open_source(root)


def test_unknown_recordings(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    # The message lists what was looked for, for every format.
    assert all(f"{name}:" in str(caught.value) for name in FORMATS)
    with pytest.raises(SourceError, match=r"unknown format 'dvd'.*7scenes"):
        open_source(tmp_path, "dvd")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "simulated"])
def test_every_format_refuses_an_empty_folder(tmp_path, name):
    with pytest.raises(SourceError, match=re.escape(str(tmp_path))):
        open_source(tmp_path, name)


@pytest.fixture
def tum(tmp_path):
    """Three frames; ground truth moves 1 m/s along x, with a gap over the last frame."""
    root = tmp_path / "rgbd_dataset_freiburg2_desk"
    (root / "rgb").mkdir(parents=True)
    stamps = ["1305031229.528748", "1305031229.564425123", "1305031230.000000"]
    for number, stamp in enumerate(stamps):
        (root / "rgb" / f"{stamp}.png").write_bytes(encode_png(picture(number, (480, 640))))
    write(root / "rgb.txt", "# timestamp filename\n" + "".join(f"{s} rgb/{s}.png\n" for s in stamps))
    lines = [f"1305031229.{500 + 10 * i:03d} {0.01 * i} 2 3 0 0 0 1\n" for i in range(10)]
    write(root / "groundtruth.txt", "# poses\n" + "".join([*lines, "1305031230.5 9 2 3 0 0 0 1\n"]))
    return root


def test_tum(tum):
    source = open_source(tum)
    assert (source.format, source.ground_truth) == ("tum", "motion capture")
    # Exact nanoseconds: a float of an epoch stamp has 238 ns steps.
    assert [record.stamp_ns for record in source.records][:2] == [1305031229528748000, 1305031229564425123]
    np.testing.assert_allclose(source.records[0].T_map_cam.t, [0.028748, 2.0, 3.0], atol=1e-9)
    assert source.records[2].T_map_cam is None
    # freiburg2 in the name of the folder.
    assert source.camera.K[0, 0] == 520.9
    assert source.read(1).image.ndim == 2


def test_tum_of_an_unknown_camera_needs_a_calibration(tum):
    renamed = tum.rename(tum.with_name("my_recording"))
    with pytest.raises(SourceError, match=r"expected a ROS calibration camera\.yaml"):
        open_source(renamed)
    write_camera_yaml(renamed / "camera.yaml", Camera.pinhole(640, 480, 500, 500, 320, 240))
    assert open_source(renamed).camera.K[0, 0] == 500


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rgb.txt", "1.0 a.png\nnow b.png", r"rgb\.txt:2: expected 'stamp file'"),
        ("rgb.txt", "# nothing", "no frames found"),
        ("rgb.txt", "2.0 rgb/1305031230.000000.png\n1.0 a.png", "stamps must increase"),
        ("rgb.txt", "1.0 a.png\n2.0 a.png", "listed twice"),
        ("groundtruth.txt", "1.0 1 2 3 0 0 0 0", r"groundtruth\.txt:1: .*quaternion is zero"),
        ("groundtruth.txt", "1.0 1 2", r"groundtruth\.txt:1"),
    ],
)
def test_tum_damage(tum, file, text, message):
    write(tum / file, text)
    with pytest.raises(SourceError, match=message):
        open_source(tum)


@pytest.fixture
def kitti(tmp_path, rng):
    """Two sequences; 03 with both cameras and poses, 11 grey without ground truth. Returns (root, poses of
    03).
    """
    root = tmp_path / "odometry"
    poses = [random_pose(rng) for _ in range(3)]
    for name, kinds in (("03", ("image_0", "image_2")), ("11", ("image_0",))):
        for kind in kinds:
            shape = (48, 64, 3) if kind == "image_2" else (48, 64)
            for i in range(3):
                write(root / "sequences" / name / kind / f"{i:06d}.png", encode_png(picture(i, shape)))
        write(root / "sequences" / name / "times.txt", "0.000000e+00\n1.037359e-01\n2.073381e-01\n")
        write(
            root / "sequences" / name / "calib.txt",
            "P0: 50 0 31 0 0 50 24 0 0 0 1 0\nP2: 50 0 31 10 0 50 24 0 0 0 1 0\n",
        )
    lines = [" ".join(f"{v:.12e}" for v in T.matrix()[:3].reshape(-1)) for T in poses]
    write(root / "poses" / "03.txt", "\n".join(lines))
    return root, poses


def test_kitti(kitti):
    root, poses = kitti
    source = open_source(root)
    assert [record.sequence for record in source.records] == ["03"] * 3 + ["11"] * 3
    assert source.records[1].stamp_ns == 3 * 10_000_000_000_000 + 103_735_900
    assert source.read(0).image.ndim == 3
    # Camera 2 sees a point of camera 0 shifted by K^-1 P2[:, 3] = 0.2 m, so it is 0.2 m to the left.
    for record, T_map_cam0 in zip(source.records, poses, strict=False):
        assert_pose(record.T_map_cam, T_map_cam0 @ SE3(np.eye(3), np.array([-0.2, 0.0, 0.0])))
    assert source.records[4].T_map_cam is None

    one = open_source(root / "sequences" / "03", images="image_0")
    assert one.records[0].name == "03/image_0/000000.png"
    assert_pose(one.records[2].T_map_cam, poses[2])
    for wrong in ("x", "nan", "1e400", "99999999999999999999"):
        write(root / "sequences" / "03" / "times.txt", f"0\n{wrong}\n0.2\n")
        with pytest.raises(SourceError, match=r"times\.txt:2"):
            open_source(root)


@pytest.mark.parametrize(
    "wrong", ["50 0 31 0 0 50 24 0 0 0 0 0", "nan " * 12, "50 0 31 inf 0 50 24 0 0 0 1 0", "1 2"]
)
def test_kitti_calibration_that_is_none_names_its_line(kitti, wrong):
    root, _ = kitti
    write(root / "sequences" / "03" / "calib.txt", f"P0: {wrong}\nP2: {wrong}\n")
    with pytest.raises(SourceError, match=r"calib\.txt:2"):
        open_source(root)


def test_cambridge(tmp_path, rng):
    root = tmp_path / "OldHospital"
    poses = {f"seq{s}/frame{f:05d}.png": random_pose(rng) for s in (2, 10) for f in (1, 2, 9)}
    for number, name in enumerate(poses):
        write(root / name, encode_png(picture(number)))
    heading = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    for split, chosen in (("train", "seq2"), ("test", "seq10")):
        lines = []
        for name, T_map_cam in reversed(poses.items()):
            if name.startswith(chosen + "/"):
                x, y, z, w = T_map_cam.inverse().quaternion_xyzw()
                lines.append(" ".join([name, *(f"{v:.9f}" for v in (*T_map_cam.t, w, x, y, z))]))
        write(root / f"dataset_{split}.txt", heading + "\n".join(lines))
    nvm = [f"{name.replace('.png', '.jpg')}\t{1600 + i} 1 0 0 0 0 0 0 0 0" for i, name in enumerate(poses)]
    write(root / "reconstruction.nvm", "NVM_V3\n\n6\n" + "\n".join(nvm))

    source = open_source(root)
    # seq2 before seq10, frames in order.
    assert [record.name for record in source.records] == list(poses)
    assert source.stamps == source.split("test").stamps == "invented"
    for record in source.records:
        assert_pose(record.T_map_cam, poses[record.name], atol=1e-6)
    assert [len(source.split(name).records) for name in ("train", "test")] == [3, 3]
    # Focal lengths are of images 1920 wide; every frame has its own.
    assert source.read(4).camera.K[0, 0] == pytest.approx(1604 * 64 / 1920)
    with pytest.raises(SourceError, match=r"dataset_test\.txt:4: expected 'image X Y Z W P Q R'"):
        write(root / "dataset_test.txt", heading + "seq10/frame00001.png 1 2 3\n")
        open_source(root)


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


def test_broken_conversion_leaves_nothing(seven_scenes, tmp_path):
    root, _ = seven_scenes
    source = open_source(root)
    (root / "seq-10" / "frame-000003.color.png").write_bytes(b"")
    with pytest.raises(SourceError, match="empty"):
        write_tum(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kitchen"]


def test_kapture_rigs_frame_numbers_and_several_cameras(tmp_path, rng):
    root = tmp_path / "kap"
    T_cam_rig, T_map_rig = random_pose(rng), random_pose(rng)

    def row(T):
        x, y, z, w = T.quaternion_xyzw()
        return ", ".join(f"{v:.12g}" for v in (w, x, y, z, *T.t))

    for name in ("a", "b"):
        for i in range(2):
            write(root / "sensors" / "records_data" / name / f"{i}.png", encode_png(picture(i)))
    write(
        root / "sensors" / "sensors.txt",
        "".join(f"{s}, {s}, camera, SIMPLE_PINHOLE, 64, 48, 50, 32, 24\n" for s in "ab"),
    )
    write(root / "sensors" / "rigs.txt", f"rig, a, {row(T_cam_rig)}\n")
    write(
        root / "sensors" / "trajectories.txt", f"0, rig, {row(T_map_rig.inverse())}\n1, rig, , , , , , , \n"
    )
    write(
        root / "sensors" / "records_camera.txt",
        "# kapture format: 1.1\n0, a, a/0.png\n1, a, a/1.png\n0, b, b/0.png\n1, b, b/1.png\n",
    )
    with pytest.raises(SourceError, match="choose one of: a, b"):
        open_source(root)
    source = open_source(root, sensor="a")
    assert source.camera.K[0, 2] == 31.5
    assert [record.stamp_ns for record in source.records] == [0, round(1e9 / 30)]
    assert source.stamps == "invented"
    assert_pose(source.records[0].T_map_cam, T_map_rig @ T_cam_rig.inverse())
    assert source.records[1].T_map_cam is None


@pytest.mark.parametrize("binary", [False, True])
def test_colmap(tmp_path, rng, binary):
    pycolmap = pytest.importorskip("pycolmap")
    model = tmp_path / "text"
    poses = {f"{folder}/{i}.png": random_pose(rng) for folder in ("x", "y") for i in range(2)}
    lines = []
    for number, (name, T_map_cam) in enumerate(poses.items(), start=1):
        write(tmp_path / "images" / name, encode_png(picture(number)))
        x, y, z, w = T_map_cam.inverse().quaternion_xyzw()
        values = " ".join(f"{v:.12g}" for v in (w, x, y, z, *T_map_cam.inverse().t))
        lines.append(f"{number} {values} 1 {name}\n\n")
    write(model / "cameras.txt", "1 OPENCV 64 48 50 51 32 24.5 0.1 -0.05 0.001 0.002\n")
    write(model / "images.txt", "".join(lines))
    write(model / "points3D.txt", "")
    sparse = tmp_path / "sparse" / "0"
    sparse.mkdir(parents=True)
    if binary:
        pycolmap.Reconstruction(model).write_binary(sparse)
    else:
        pycolmap.Reconstruction(model).write_text(sparse)
    source = open_source(tmp_path)
    assert (source.format, [r.name for r in source.records]) == ("colmap", list(poses))
    assert [record.sequence for record in source.records] == ["x", "x", "y", "y"]
    assert source.stamps == "invented"
    for record in source.records:
        assert_pose(record.T_map_cam, poses[record.name], atol=1e-8)
    np.testing.assert_allclose(source.camera.K[:2, 2], [31.5, 24.0])
    np.testing.assert_array_equal(source.read(3).image, picture(4))
    # The model folder itself will do, too.
    assert len(open_source(sparse).records) == 4
    if not binary:
        # A quaternion far from unit length is no rotation. Frames and rigs would go before the images' own poses.
        (sparse / "frames.txt").unlink(missing_ok=True)
        (sparse / "rigs.txt").unlink(missing_ok=True)
        write(sparse / "images.txt", "1 1 1 0 0 0 0 0 1 x/0.png\n\n")
        with pytest.raises(SourceError, match=r"x/0\.png"):
            open_source(tmp_path)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("plumb_bob", []),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.0]),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.3]),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.3, 0.01, 0.02, 0.03]),
        ("equidistant", [0.1, -0.2, 0.03, -0.01]),
    ],
)
def test_colmap_cameras_project_alike(model, distortion):
    cv2 = pytest.importorskip("cv2")
    camera = Camera(64, 48, CAMERA.K, np.array(distortion), model)
    again = camera_from_colmap(camera_to_colmap(camera)[0], 64, 48, camera_to_colmap(camera)[1])
    points = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 4], (20, 1, 3))

    def project(c):
        if c.model == "equidistant":
            return cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), c.K, c.distortion)[0]
        return cv2.projectPoints(points, np.zeros(3), np.zeros(3), c.K, c.distortion)[0]

    np.testing.assert_allclose(project(again), project(camera), atol=1e-9)


@pytest.mark.parametrize(
    ("folder", "format", "frames", "splits", "first_fx"),
    [
        ("redkitchen", "7scenes", 770, {"train": 470, "test": 300}, 525.0),
        ("tum_fr1_rpy", "tum", 723, {"train": 506, "test": 217}, 517.3),
        ("kitti_00", "kitti", 150, {}, 718.856),
    ],
)
def test_real_recordings(shared_dir, folder, format, frames, splits, first_fx):
    path = shared_dir / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the shared recording {folder}")
    source = open_source(path)
    assert (source.format, len(source.records)) == (format, frames)
    assert {name: len(source.split(name).records) for name in source.splits} == splits
    assert source.camera.K[0, 0] == first_fx
    assert sum(record.T_map_cam is not None for record in source.records) > 0.99 * frames
    assert source.read(frames // 2).camera.same_as(source.camera)
