"""COLMAP models, text and binary."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import assert_pose, picture, random_pose, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source


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


def test_images_are_in_natural_order(tmp_path, rng):
    names = ["x/2.png", "x/10.png", "y10/1.png", "y9/1.png"]
    rows = []
    for number, name in enumerate(names, start=1):
        write(tmp_path / "images" / name, encode_png(picture(number)))
        rows.append(f"{number} 1 0 0 0 {number} 0 0 1 {name}\n\n")
    write(tmp_path / "sparse" / "cameras.txt", "1 PINHOLE 64 48 50 51 32 24.5\n")
    write(tmp_path / "sparse" / "images.txt", "".join(rows))
    write(tmp_path / "sparse" / "points3D.txt", "")
    source = open_source(tmp_path)
    assert [record.name for record in source.records] == ["x/2.png", "x/10.png", "y9/1.png", "y10/1.png"]
    assert [record.sequence for record in source.records] == ["x", "x", "y9", "y10"]
    # Each image keeps its own pose.
    assert [-record.T_map_cam.t[0] for record in source.records] == [1.0, 2.0, 4.0, 3.0]
