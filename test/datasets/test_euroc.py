"""EuRoC/ASL: body poses and extrinsics, two cameras, TUM-VI's files, what is missing."""

from __future__ import annotations

import pytest
import yaml
from small_recordings import CAMERA, assert_pose, picture, random_pose, write

from localizer_ros.core.se3 import interpolate
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source, require_camera

START_NS = 1_403_636_579_763_555_584
# Images at 20 Hz, poses at 200 Hz, as EuRoC has them.
IMAGE_NS, POSE_NS = 50_000_000, 5_000_000


def stamp(i):
    return START_NS + i * IMAGE_NS


def sensor_yaml(T_body_sensor, **more):
    pose = {"cols": 4, "rows": 4, "data": T_body_sensor.matrix().reshape(-1).tolist()}
    return yaml.safe_dump({"T_BS": pose, **more})


def intrinsics():
    K = CAMERA.K
    return {
        "camera_model": "pinhole",
        "resolution": [64, 48],
        "intrinsics": [float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [0.1, -0.05, 0.001, 0.002],
    }


def pose_rows(poses, step_ns):
    rows = [
        "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v"
    ]
    for i, T in enumerate(poses):
        x, y, z, w = T.quaternion_xyzw()
        rows.append(
            f"{START_NS + i * step_ns}," + ",".join(f"{v:.12f}" for v in (*T.t, w, x, y, z)) + ",0.0,0.1"
        )
    return "\n".join(rows) + "\n"


@pytest.fixture
def euroc(tmp_path, rng):
    """Two cameras, four images each, and the body at 200 Hz over the first three. Returns (folder, facts)."""
    root = tmp_path / "MH_01" / "mav0"
    T_body_cam = {name: random_pose(rng) for name in ("cam0", "cam1")}
    for name, T in T_body_cam.items():
        write(root / name / "sensor.yaml", sensor_yaml(T, **intrinsics()))
        listing = "#timestamp [ns],filename\r\n"
        for i in range(4):
            listing += f"{stamp(i)},{stamp(i)}.png\r\n"
            write(root / name / "data" / f"{stamp(i)}.png", encode_png(picture(i, (48, 64))))
        write(root / name / "data.csv", listing)
    ends = [random_pose(rng) for _ in range(3)]
    T_map_body = [interpolate(ends[i // 10], ends[min(i // 10 + 1, 2)], (i % 10) / 10.0) for i in range(21)]
    write(root / "state_groundtruth_estimate0" / "data.csv", pose_rows(T_map_body, POSE_NS))
    return root.parent, T_body_cam, ends


@pytest.mark.parametrize("name", ["cam0", "cam1"])
def test_poses_of_the_body_become_those_of_the_chosen_camera(euroc, name):
    path, T_body_cam, T_map_body = euroc
    source = open_source(path, camera=name)
    assert (source.format, source.stamps, len(source.records)) == ("euroc", "recorded", 4)
    assert [record.stamp_ns for record in source.records] == [stamp(i) for i in range(4)]
    for record, T in zip(source.records, T_map_body, strict=False):
        assert_pose(record.T_map_cam, T @ T_body_cam[name], 1e-9)
    assert source.records[3].T_map_cam is None
    assert_pose(source.T_base_cam, T_body_cam[name])
    assert source.camera.model == "plumb_bob" and source.camera.K[0, 0] == CAMERA.K[0, 0]
    assert source.read(1).name == f"{name}/data/{stamp(1)}.png"


def test_the_left_camera_is_usual_and_another_is_suggested(euroc):
    path, *_ = euroc
    assert open_source(path / "mav0").records[0].name.startswith("cam0/")
    with pytest.raises(SourceError, match=r"no camera 'cam2'.*cam0, cam1"):
        open_source(path, camera="cam2")


def test_poses_of_a_marker_become_those_of_the_body(euroc, rng):
    path, T_body_cam, T_map_body = euroc
    T_body_marker = random_pose(rng)
    (path / "mav0" / "state_groundtruth_estimate0" / "data.csv").unlink()
    write(path / "mav0" / "vicon0" / "sensor.yaml", sensor_yaml(T_body_marker))
    write(
        path / "mav0" / "vicon0" / "data.csv",
        pose_rows([T @ T_body_marker for T in T_map_body], IMAGE_NS),
    )
    source = open_source(path)
    assert source.ground_truth == "motion capture"
    assert_pose(source.records[1].T_map_cam, T_map_body[1] @ T_body_cam["cam0"])


def test_kalibr_knows_the_camera_where_its_own_file_does_not(euroc):
    path, T_body_cam, _ = euroc
    (path / "mav0" / "cam0" / "sensor.yaml").write_text("sensor_type: camera\n")
    with pytest.raises(SourceError, match=r"camera is not known; expected a ROS calibration .*camera\.yaml"):
        require_camera(open_source(path))
    chain = {
        "cam0": {
            **intrinsics(),
            "distortion_model": "equidistant",
            "distortion_coeffs": [0.01, 0.02, 0.03, 0.04],
            "T_cam_imu": T_body_cam["cam0"].inverse().matrix().tolist(),
        }
    }
    del chain["cam0"]["distortion_coefficients"]
    write(path / "dso" / "camchain.yaml", yaml.safe_dump(chain))
    source = open_source(path)
    assert source.camera.model == "equidistant"
    assert_pose(source.T_base_cam, T_body_cam["cam0"])


def test_poses_without_extrinsics_say_nothing_of_the_camera(euroc):
    path, *_ = euroc
    (path / "mav0" / "cam0" / "sensor.yaml").write_text(yaml.safe_dump(intrinsics()))
    source = open_source(path)
    assert source.records[0].T_map_cam is None and source.T_base_cam is None
    assert "has no T_BS" in source.pose_problem


def test_poses_of_another_clock_are_said_to_be_so(euroc):
    path, *_ = euroc
    file = path / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    file.write_text(file.read_text().replace(str(START_NS)[:5], "15555"))
    assert "does not overlap the images" in open_source(path).pose_problem


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("cam0/data.csv", "1,a.png\nnow,b.png\n", r"data\.csv:2: expected 'timestamp \[ns\], filename'"),
        ("cam0/data.csv", "12\n", r"data\.csv:1"),
        ("cam0/sensor.yaml", "intrinsics: [1, 2]\n", r"sensor\.yaml: expected .*resolution is missing"),
        ("cam0/sensor.yaml", "T_BS: {data: [1, 2]}\n", r"sensor\.yaml: expected a pose of 4x4"),
        ("state_groundtruth_estimate0/data.csv", "1,2,3\n", r"data\.csv:1: expected 'timestamp"),
    ],
)
def test_a_malformed_file_is_named(euroc, file, text, message):
    path, *_ = euroc
    (path / "mav0" / file).write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(path)


def test_a_missing_image_costs_that_frame(euroc):
    path, *_ = euroc
    (path / "mav0" / "cam0" / "data" / f"{stamp(2)}.png").unlink()
    assert list(open_source(path).broken) == [f"cam0/data/{stamp(2)}.png"]
