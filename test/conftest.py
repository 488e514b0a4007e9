"""Fixtures of all tests, and an environment in which the ROS 2 nodes of one test run see only each other."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # Set before rclpy is imported, and inherited by the processes that tests start.
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(REPOSITORY / "config" / "fastdds.xml")
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))  # up to 101 is free on Linux
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)  # deprecated, and stronger than the discovery range


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with the same seed in every test."""
    return np.random.default_rng(20240817)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared recordings and weights beside the repository; tests skip without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared recordings: no folder named shared beside the repository")
    return folder
