"""Settings of the ROS node: what the localizer is run with, and what only the process needs."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from localizer_ros.core.config.runtime import RunConfig
from localizer_ros.core.config.schema import USER
from localizer_ros.core.types import ConfigError

# As ROS has names of topics.
CAMERA_NAME = re.compile(r"[A-Za-z]\w*(/[A-Za-z]\w*)*", re.ASCII)


class NodeConfig(RunConfig, frozen=True):
    """Every parameter of the ROS node: what the localizer is run with, and what only the process needs."""

    scene: Annotated[
        str, Meta(extra=USER, description="Scene folder, made by `localizer map` (ROS node only)")
    ] = ""
    autostart: Annotated[
        bool,
        Meta(
            extra=USER,
            description="The node configures and activates itself at the start; false leaves it to a lifecycle "
            "manager (ROS node only)",
        ),
    ] = True
    cameras: Annotated[
        str,
        Meta(
            extra=USER,
            description="Names of several cameras of the robot, separated by commas; camera front is subscribed to as "
            "front/image and front/camera_info. Needs base_frame; empty = one camera, image and camera_info (ROS node "
            "only)",
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Raise ConfigError where settings contradict each other; names them."""
        super().__post_init__()
        names = self.camera_names
        if names == ("",):
            return
        if not all(CAMERA_NAME.fullmatch(name) for name in names) or len(set(names)) != len(names):
            raise ConfigError(f"cameras: expected different names as topics have them, got {self.cameras!r}")
        if not self.base_frame:
            raise ConfigError("cameras: needs base_frame as well, to know what the cameras are mounted on")
        if self.independent:
            raise ConfigError("cameras: frames of several cameras cannot stand for themselves (independent)")

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras; one empty name where there is but one camera."""
        return tuple(name.strip() for name in self.cameras.split(","))
