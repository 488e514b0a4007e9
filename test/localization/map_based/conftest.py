"""Scenes of a simulated drive, by method, and the same drive at other times to look for."""

from pathlib import Path

import pytest

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.mapping.build import build_scene

WORLD = {"duration_s": 4.0, "fps": 8.0, "width_px": 240, "height_px": 180, "moving_objects": 0}


@pytest.fixture(scope="session")
def drive() -> SimulatedSource:
    """The drive that is mapped."""
    return SimulatedSource(config_from_dict(WorldConfig, WORLD))


@pytest.fixture(scope="session")
def queries() -> SimulatedSource:
    """The same drive at other times."""
    return SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "fps": 3.3}))


@pytest.fixture(scope="session")
def elsewhere() -> SimulatedSource:
    """A drive through another place."""
    return SimulatedSource(config_from_dict(WorldConfig, {**WORLD, "place": "hall", "seed": 5}))


@pytest.fixture(scope="session")
def posed_scenes(drive: SimulatedSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes of the drive by method: relative (with a map of points), local and retrieval (without). Read-only."""
    folder = tmp_path_factory.mktemp("posed")
    for method in ("relative", "local", "retrieval"):
        config = config_from_dict(
            MapConfig, {"method": method, "structure": {"retrieval": {"words": 16, "kind": "vlad"}}}
        )
        build_scene(drive, "all", config, folder / method)
    return {method: folder / method for method in ("relative", "local", "retrieval")}
