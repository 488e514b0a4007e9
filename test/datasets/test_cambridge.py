"""Cambridge Landmarks: natural order, a focal length for every image."""

from __future__ import annotations

import pytest
from small_recordings import assert_pose, picture, random_pose, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source


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
