"""Topics are found by themselves or chosen."""

from __future__ import annotations

import numpy as np
import pytest
from bag_recorder import pictures, stamp

from localizer_ros.core.types import SourceError
from localizer_ros.datasets.source import open_source


def test_several_image_topics_must_be_chosen(recorder, rng):
    for side in ("left", "right"):
        recorder.info(f"/{side}/camera_info", 64, 48)
        for i, pixels in enumerate(pictures(rng)):
            recorder.image(f"/{side}/image_raw", stamp(i), pixels, "rgb8")
    recorder.image("/depth/image_raw", stamp(0), np.zeros((48, 64), np.uint16), "16UC1")
    path = recorder.close()
    with pytest.raises(SourceError, match="choose one of /left/image_raw, /right/image_raw"):
        open_source(path)
    assert (
        open_source(path, topics={"image": "/right/image_raw"}).topics["camera_info"] == "/right/camera_info"
    )
    with pytest.raises(SourceError, match="no image topic '/up'"):
        open_source(path, topics={"image": "/up"})
    with pytest.raises(SourceError, match="unknown topic option 'images'"):
        open_source(path, topics={"images": "/left/image_raw"})
    with pytest.raises(
        SourceError, match=r"no pose topic '/left/image_raw' \(it is a sensor_msgs/msg/Image\)"
    ):
        open_source(path, topics={"image": "/left/image_raw", "ground_truth": "/left/image_raw"})


def test_rectified_images_use_the_projection_matrix(recorder, rng):
    recorder.info("/cam/camera_info", 64, 48, d=(0.1, 0.2, 0.0, 0.0, 0.0))
    recorder.image("/cam/image_rect_color", stamp(0), pictures(rng)[0], "rgb8")
    source = open_source(recorder.close())
    assert (source.camera.K[0, 0], source.camera.distorted) == (40.0, False)
