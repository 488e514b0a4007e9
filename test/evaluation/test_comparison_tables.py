"""The tables of a comparison: a row for each scene, and what is common to all once."""

from __future__ import annotations

import pytest

from localizer_ros.evaluation.compare import Comparison
from localizer_ros.evaluation.comparison_tables import comparison_markdown, comparison_tables


@pytest.mark.slow
def test_the_tables_have_a_row_for_each(comparison: Comparison) -> None:
    poses, motions = comparison_tables(comparison)
    assert all(len(row) == len(table.columns) for table in (poses, motions) for row in table.rows)
    assert [row[0] for row in poses.rows][:3] == ["posenet", "nowhere", "hierarchical"]
    assert "no such scene" in poses.rows[1][1]
    assert poses.rows[3][0].startswith("nearest neighbour")
    evaluation = comparison.scenes[0].evaluation
    assert evaluation is not None
    counts = evaluation.raw.answered, evaluation.metrics.answered, evaluation.metrics.frames
    assert poses.rows[0][1] == "{} -> {} of {}".format(*counts)
    assert [row[:2] for row in motions.rows] == [
        ("posenet", "vo"),
        ("hierarchical", "tracking"),
        ("external odometry", "odom"),
        ("geometric VO, lengths: odometry", "geometric"),
    ]
    text = comparison_markdown(comparison, "localizer compare these")
    assert "\nlocalizer compare these\n" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * 2 + len(poses.rows) + len(motions.rows)
    assert len({line.count("|") for line in lines[: 2 + len(poses.rows)]}) == 1
