"""Fixtures of the tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localizer_ros.scene.bundle import Scene


@pytest.fixture
def scene(tiny_scene: Path, tmp_path: Path) -> Scene:
    """A copy of the tiny scene that may be written to."""
    shutil.copytree(tiny_scene, tmp_path / "scene")
    return Scene.load(tmp_path / "scene")
