"""A comparison of scenes, which takes long enough to be made once only."""

from __future__ import annotations

from pathlib import Path

import pytest

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.compare import Comparison, compare


@pytest.fixture(scope="session")
def comparison(tiny_source: FrameSource, tiny_scene: Path, tiny_map: Path) -> Comparison:
    """A network, a scene that is not there, and a map, on twelve frames."""
    scenes = [tiny_scene, tiny_map.parent / "nowhere", tiny_map]
    return compare(scenes, tiny_source, "all", LocalizerConfig(), limit=12, geometric_vo=True)
