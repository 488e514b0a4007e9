"""A recording for every command."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A recording that takes no time to make."""
    file = tmp_path / "world.yaml"
    file.write_text("width_px: 64\nheight_px: 64\nfps: 8\nduration_s: 0.5\n")
    return file
