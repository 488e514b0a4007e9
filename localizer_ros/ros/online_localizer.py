"""What the node needs of the localizer, and how the real one is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localizer_ros.core.config.node import NodeConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Frame, LocalizerOutput, PoseEstimate
from localizer_ros.ros.memory import give_back


class OnlineLocalizer(Protocol):
    """What the node needs of ``localization.localizer.Localizer``."""

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to one frame. Raises FrameRejected."""
        ...

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """Take a sample of external odometry."""
        ...

    def reconfigure(self, config: LocalizerConfig) -> None:
        """Take other gates and limits."""
        ...

    def set_prior(self, prior: PoseEstimate) -> None:
        """Start over at a given pose."""
        ...

    def relocalize(self) -> None:
        """Find the pose again."""
        ...

    def reset(self) -> None:
        """Forget everything but the scene."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedScene:
    """A localizer and the frame its poses are in."""

    localizer: OnlineLocalizer
    map_frame: str


Opener = Callable[[Path, NodeConfig], OpenedScene]


def open_scene(path: Path, config: NodeConfig) -> OpenedScene:
    """The localizer of a scene on disk. Raises SceneError or BackendError."""
    # Late: importing the networks' runtime takes longer than telling a user of a misspelt parameter.
    from localizer_ros.scene.bundle import Scene

    opened = OpenedScene(open_for_node(path, config, threaded=True), Scene.load(path).map_frame)
    give_back()
    return opened


def open_for_node(path: Path, config: NodeConfig, threaded: bool) -> OnlineLocalizer:
    """The localizer of one camera or of several. Raises SceneError, BackendError, or ConfigError."""
    from localizer_ros.localization.localizer import open_localizer
    from localizer_ros.localization.rig import open_rig

    return (open_rig if config.cameras else open_localizer)(path, config, threaded)
