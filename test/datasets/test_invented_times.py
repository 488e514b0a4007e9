"""Times of frames that have none."""

from __future__ import annotations

import numpy as np
import pytest
from small_recordings import CAMERA, picture, write

from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.invented_times import invented_ns, sequence_numbers
from localizer_ros.datasets.source import open_source


def test_times_increase_and_sequences_lie_far_apart():
    stamps = np.array([[invented_ns(i, sequence) for i in range(100)] for sequence in (0, 1, 7)])
    np.testing.assert_allclose(np.diff(stamps, axis=1), 1e9 / 30.0, atol=1.0)
    assert np.all(stamps[1:, 0] - stamps[:-1, -1] > 3600 * 10**9)


def test_sequences_keep_their_numbers_unless_these_are_dates():
    assert list(sequence_numbers([1, 4, 12])) == [1, 4, 12]
    assert list(sequence_numbers([20230101, 20230102])) == [0, 1]
    assert list(sequence_numbers([])) == []


@pytest.mark.parametrize("names", [("seq-20230101", "seq-20230102"), ("seq-1", "seq-2")])
def test_sequences_may_be_called_by_their_dates(tmp_path, names):
    for number, name in enumerate(names):
        for i in range(2):
            write(tmp_path / name / f"frame-{i:06d}.color.png", encode_png(picture(2 * number + i)))
    write_camera_yaml(tmp_path / "camera.yaml", CAMERA)
    source = open_source(tmp_path)
    assert [record.sequence for record in source.records] == [n for n in names for _ in range(2)]
