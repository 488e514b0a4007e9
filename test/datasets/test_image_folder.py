"""Folders of images and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_recordings import CAMERA, picture, write

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.images import encode_jpeg, encode_png
from localizer_ros.datasets.source import open_source, require_camera


@pytest.fixture
def folder(tmp_path):
    """Eleven images, named without leading zeros, beside a note."""
    for i in range(11):
        write(tmp_path / "photos" / f"view {i}.JPG", encode_jpeg(picture(i)))
    write(tmp_path / "photos" / "notes.txt", "the kitchen")
    return tmp_path / "photos"


def test_images_stand_in_natural_order_and_without_times(folder):
    source = open_source(folder)
    assert (source.format, source.stamps, source.ground_truth) == ("images", "invented", "none")
    assert [record.name for record in source.records] == [f"view {i}.JPG" for i in range(11)]


def test_the_camera_is_not_known_until_somebody_says(folder):
    source = open_source(folder)
    assert (source.camera.width_px, source.camera.height_px) == (64, 48)
    with pytest.raises(SourceError, match=r"camera is not known; expected a ROS calibration .*camera\.yaml"):
        require_camera(source)
    write_camera_yaml(folder / "camera.yaml", CAMERA)
    require_camera(open_source(folder))


def test_images_of_another_size_are_left_out(folder):
    write(folder / "view 0.JPG", encode_jpeg(picture(0, (64, 48, 3))))
    write(folder / "view 3.JPG", b"")
    assert list(open_source(folder).broken) == ["view 0.JPG", "view 3.JPG"]


def test_folders_of_images_are_sequences(tmp_path):
    for sequence in ("drive10", "drive2", "masks", ".cache"):
        write(tmp_path / sequence / "1.png", encode_png(picture(1)))
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path)
    assert [(record.sequence, record.name) for record in source.records] == [
        ("drive2", "drive2/1.png"),
        ("drive10", "drive10/1.png"),
    ]


@pytest.mark.parametrize(
    ("names", "first_ns"),
    [
        (["1403636579763555584", "1403636579813555456"], 1_403_636_579_763_555_584),
        (["1403636579763555", "1403636579813555"], 1_403_636_579_763_555_000),
        (["1305031102.175304", "1305031102.211214"], 1_305_031_102_175_304_000),
    ],
)
def test_names_that_are_stamps_are_times(tmp_path, names, first_ns):
    for name in names:
        write(tmp_path / f"{name}.png", encode_png(picture(1)))
    source = open_source(tmp_path)
    assert (source.stamps, source.records[0].stamp_ns) == ("recorded", first_ns)


def test_a_bag_with_a_picture_beside_it_is_a_bag(tmp_path):
    write(tmp_path / "preview.png", encode_png(picture(1)))
    write(tmp_path / "metadata.yaml", "nothing: here")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert "images" not in str(caught.value)


def test_images_of_every_depth_and_a_linked_folder(tmp_path):
    rgb = picture(1)
    forms = {
        "grey": rgb[..., 1],
        "alpha": np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 255, np.uint8)]),
        "sixteen": rgb[..., ::-1].astype(np.uint16) * 257,
    }
    for name, pixels in forms.items():
        write(tmp_path / "store of images" / f"{name}.png", cv2.imencode(".png", pixels)[1].tobytes())
    (tmp_path / "linked").symlink_to("store of images")
    source = open_source(tmp_path / "linked")
    images = {record.name: source.read(i).image for i, record in enumerate(source.records)}
    np.testing.assert_array_equal(images["grey.png"], rgb[..., 1])
    np.testing.assert_array_equal(images["alpha.png"], rgb)
    np.testing.assert_array_equal(images["sixteen.png"], rgb)
