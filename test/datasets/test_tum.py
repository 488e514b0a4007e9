"""TUM RGB-D: exact stamps, interpolated poses, cameras known by name."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import picture, write

from localizer_ros.core.types import Camera, SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.source import open_source, require_camera


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
    with pytest.raises(
        SourceError, match=r"the camera is not known; expected a ROS calibration .*camera\.yaml"
    ):
        require_camera(open_source(renamed))
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
