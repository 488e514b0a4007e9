"""A program: the node's process with a fake localizer. ``fake_node.py fake|slow [SCENE to view] [ROS arguments]``."""

import sys
import time
from pathlib import Path

from fake_robot import FakeLocalizer

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.ros.main import run_node
from localizer_ros.ros.online_localizer import OpenedScene


def open_at_once(path: Path, config: LocalizerConfig) -> OpenedScene:
    return OpenedScene(FakeLocalizer(), "map")


def open_slowly(path: Path, config: LocalizerConfig) -> OpenedScene:
    print("opening", flush=True)
    time.sleep(60.0)
    return open_at_once(path, config)


if __name__ == "__main__":
    opener = {"fake": open_at_once, "slow": open_slowly}[sys.argv[1]]
    scene = None if sys.argv[2] == "--ros-args" else Path(sys.argv[2])
    sys.exit(run_node(sys.argv[1:], scene, opener, view=scene is not None))
