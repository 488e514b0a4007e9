"""How far views are off the mapped path, and accuracy by it."""

from __future__ import annotations

import numpy as np
import pytest
from answer_cases import shift, turn

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.answers import Answer
from localizer_ros.evaluation.off_path import off_path_table, view_change


def test_view_change_finds_the_pose_most_alike() -> None:
    mapping = [SE3.identity(), SE3(turn(90.0).R, np.array([0.1, 0.0, 0.0])), shift(0.5)]
    assert view_change(shift(0.1), mapping)[0] == 0
    # Nearer in space, but looking elsewhere.
    index, metres, degrees = view_change(SE3(turn(10.0).R, np.array([0.1, 0.0, 0.0])), mapping)
    assert (index, metres, degrees) == (0, pytest.approx(0.1), pytest.approx(10.0))
    with pytest.raises(ValueError, match="mapping"):
        view_change(SE3.identity(), [])


def test_off_path_table_bins_by_distance_and_angle() -> None:
    answers = [
        Answer("a", 0, shift(0.05), shift(0.05)),
        Answer("a", 1, shift(0.3), shift(0.7)),
        Answer("a", 2, shift(9.0), None),
    ]
    rows = off_path_table(answers, [SE3.identity()])
    distance = [r for r in rows if r["by"] == "distance_m"]
    assert [(r["from"], r["to"], r["frames"], r["answered"]) for r in distance] == [
        (0.0, 0.1, 1, 1),
        (0.25, 0.5, 1, 1),
        (2.0, None, 1, 0),
    ]
    assert distance[1]["median_t_m"] == pytest.approx(0.4)
    assert [r["recall_50cm_5deg"] for r in distance] == [1.0, 1.0, 0.0]
    assert sum(r["frames"] for r in rows if r["by"] == "angle_deg") == 3
    assert off_path_table(answers, []) == []
