"""KITTI odometry: several sequences, two cameras, poses that may be missing."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import assert_pose, picture, random_pose, write

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source


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

    one = open_source(root / "sequences" / "03", camera="image_0")
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


def test_images_that_are_gone_are_counted(kitti):
    root, _ = kitti
    assert open_source(root).problems == []
    (root / "sequences" / "03" / "image_2" / "000001.png").unlink()
    source = open_source(root)
    assert source.problems == ["03: 1 of 3 lines of times.txt have no image"]
    assert [record.name[-5] for record in source.records if record.sequence == "03"] == ["0", "2"]
