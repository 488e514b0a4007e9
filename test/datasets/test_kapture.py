"""kapture: rigs, frame numbers in place of times, several cameras."""

from __future__ import annotations

import pytest
from small_recordings import assert_pose, picture, random_pose, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source


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
    with pytest.raises(SourceError, match=r"2 cameras \(a, b\); choose one, e.g. --topic camera=a"):
        open_source(root)
    source = open_source(root, camera="a")
    assert source.camera.K[0, 2] == 31.5
    assert [record.stamp_ns for record in source.records] == [0, round(1e9 / 30)]
    assert source.stamps == "invented"
    assert_pose(source.records[0].T_map_cam, T_map_rig @ T_cam_rig.inverse())
    assert source.records[1].T_map_cam is None
