"""Commands about recordings."""

from __future__ import annotations

from pathlib import Path

from command_line import localizer


def test_what_a_format_has_no_place_for_is_said(world: Path, tmp_path: Path) -> None:
    assert "odometry" in localizer("convert", world, tmp_path / "tum", "--to", "tum").stderr
    assert "left out" not in localizer("convert", world, tmp_path / "bag", "--to", "bag").stderr
