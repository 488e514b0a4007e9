"""Suggestions for mistyped words."""

from __future__ import annotations

from localizer_ros.core.words import did_you_mean


def test_the_nearest_known_word_is_suggested():
    known = ("kitti", "7scenes", "rosbag")
    assert did_you_mean("KITI", known) == "; did you mean kitti?"
    assert did_you_mean("scenes", known) == "; did you mean 7scenes?"
    assert did_you_mean("colmap", ("tum",)) == ""
