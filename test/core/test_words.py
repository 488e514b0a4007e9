"""Suggestions for mistyped words."""

from __future__ import annotations

from localizer_ros.core.words import did_you_mean, one_line


def test_the_nearest_known_word_is_suggested():
    known = ("kitti", "7scenes", "rosbag")
    assert did_you_mean("KITI", known) == "; did you mean kitti?"
    assert did_you_mean("scenes", known) == "; did you mean 7scenes?"
    assert did_you_mean("colmap", ("tum",)) == ""


def test_a_long_text_is_one_line_of_its_two_ends() -> None:
    assert one_line("a\n b") == "a b"
    long = one_line("file: " + "9" * 5000 + " is not one")
    assert len(long) == 500 and long.startswith("file: 9") and long.endswith("9 is not one")
