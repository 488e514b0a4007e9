"""One line a frame: what is known of it, and empty where nothing is."""

from __future__ import annotations

import csv
import io

import pytest
from fake_runs import fake_evaluation

from localizer_ros.evaluation.frame_table import FRAME_COLUMNS, frames_csv


def test_frames_csv_has_a_row_for_each_frame() -> None:
    rows = list(csv.DictReader(io.StringIO(frames_csv(fake_evaluation()))))
    assert len(rows) == 20 and set(rows[0]) == set(FRAME_COLUMNS)
    assert float(rows[0]["error_m"]) == pytest.approx(0.02)
    assert rows[3]["dropped"] == "stamp_repeats" and rows[3]["estimate_x"] == "" and rows[3]["true_x"] != ""
    assert rows[4]["status"] == "LOST" and rows[4]["reason"] == "no idea" and rows[4]["confidence"] == ""
    assert rows[7]["nearest_mapping_image"] == "mapping/7.png"
    assert float(rows[0]["sigma_m"]) == pytest.approx(0.1)
    assert float(rows[7]["confidence"]) == pytest.approx(0.57)
