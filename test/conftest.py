"""Fixtures of all tests, and an environment in which the ROS 2 nodes of one test run see only each other."""

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import pytest
from kitchen import Kitchen, map_kitchen

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.build import build_scene

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # Set before rclpy is imported, and inherited by the processes that tests start.
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(REPOSITORY / "config" / "fastdds.xml")
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))  # up to 101 is free on Linux
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # FFmpeg reads this once, with the first video of a process, which a test may write before the package reads one.
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)  # deprecated, and stronger than the discovery range


@pytest.fixture
def opencv_as_before() -> Iterator[None]:
    """OpenCV has as many threads after a test as before it."""
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with the same seed in every test."""
    return np.random.default_rng(20240817)


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder and all in it such that a file cannot be made there; permissions would not stop root."""
    real, locked = tempfile.TemporaryFile, set[Path]()

    def temporary_file(*, dir: Path) -> IO[bytes]:
        if locked & {dir, *dir.parents}:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "a name that nobody gave")
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    return locked.add


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared recordings and weights beside the repository; tests skip without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared recordings: no folder named shared beside the repository")
    return folder


TINY_WORLD = {"duration_s": 4.0, "fps": 8.0, "width_px": 160, "height_px": 120, "moving_objects": 0}
TINY_NETWORK = {
    "encoder": "mobilenet_v3_small",
    "width_px": 96,
    "height_px": 64,
    "hidden": 32,
    "dropout": 0.0,
}


TINY_MAP = {
    "method": "hierarchical",
    "structure": {
        "features": {"max_keypoints": 400},
        "keyframes": {"max_images": 12},
        "retrieval": {"words": 16},
    },
}


@pytest.fixture(scope="session")
def tiny_source() -> FrameSource:
    """Four seconds of a simulated drive, small images."""
    return SimulatedSource(config_from_dict(WorldConfig, TINY_WORLD))


@pytest.fixture(scope="session")
def tiny_scene(tiny_source: FrameSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PoseNet scene trained for a moment on ``tiny_source``: real in every part but its accuracy. Read-only."""
    config = config_from_dict(
        MapConfig,
        {
            "method": "posenet",
            "network": TINY_NETWORK,
            "refine": "none",
            "training": {
                "epochs": 2,
                "validate_every": 1,
                "batch_size": 8,
                "augmentation": {"virtual_move": 0.0},
            },
        },
    )
    scene = tmp_path_factory.mktemp("scenes") / "tiny"
    build_scene(tiny_source, "all", config, scene)
    return scene


@pytest.fixture(scope="session")
def tiny_map(tiny_source: FrameSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with a map of points of ``tiny_source``. Read-only."""
    scene = tmp_path_factory.mktemp("scenes") / "tiny_map"
    build_scene(tiny_source, "all", config_from_dict(MapConfig, TINY_MAP), scene)
    return scene


@pytest.fixture(scope="session")
def kitchen(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """A map of a slice of a real recording. Read-only."""
    return map_kitchen(shared_dir, tmp_path_factory.mktemp)
