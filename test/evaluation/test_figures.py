"""What all figures share: which way is up, and positions that must not spoil the scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fake_runs import noisy_evaluation, upright_pose

from localizer_ros.core.se3 import SE3
from localizer_ros.evaluation.figures import trajectory_figure
from localizer_ros.evaluation.map_views import map_views


def test_which_way_is_up_comes_from_the_cameras() -> None:
    above, side = map_views([upright_pose(i) for i in range(5)])
    assert (above.right, above.up.axis, above.up.flipped) == (0, 1, False)
    assert (side.up.axis, side.up.flipped) == (2, False)
    # A map in the frame of its first camera: y is down; from above x is right and z, where it looks, up.
    above, side = map_views([SE3.identity()])
    assert (above.right, above.up.axis, above.up.flipped) == (0, 2, False)
    assert (side.up.axis, side.up.flipped) == (1, True)


def test_wild_answers_are_counted_and_do_not_shrink_the_picture(tmp_path: Path) -> None:
    evaluation = noisy_evaluation(tmp_path / "scene")
    frame = evaluation.frames[3]
    assert frame.output is not None and frame.output.estimate is not None
    object.__setattr__(frame.output.estimate, "T_map_cam", SE3(np.eye(3), np.full(3, 1e4)))
    figure = trajectory_figure(evaluation)
    left, _ = figure.axes
    assert any("1 answers of the localizer are far outside" in text.get_text() for text in left.texts)
    assert np.nanmax(np.abs(left.dataLim.extents)) < 20.0
