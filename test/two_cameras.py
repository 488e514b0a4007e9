"""A robot with two cameras, back to back, in a simulated room that one camera has mapped there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, Mount, UInt8
from localizer_ros.datasets.several import JoinedSource
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.mapping.build import build_scene

ROOM = {"duration_s": 6.0, "fps": 8.0, "width_px": 320, "height_px": 240, "moving_objects": 0}
RATE_HZ = 10.0
# Changes an image of a camera at a time of the drive, seconds.
Change = Callable[[str, float, UInt8], UInt8]


def drive(**changes: object) -> SimulatedSource:
    """A drive through the room."""
    return SimulatedSource(config_from_dict(WorldConfig, {**ROOM, **changes}))


def map_room(scene: Path) -> None:
    """A map of the room by one camera, which looks forward on one drive and backward on another."""
    settings = {
        "method": "hierarchical",
        "structure": {
            "features": {"max_keypoints": 600},
            "keyframes": {"max_images": 40},
            "retrieval": {"words": 16},
            # Both cameras are calibrated: what one camera's map would refine of it, the other does not have.
            "bundle": {"refine_intrinsics": False, "refine_extrinsics": False},
        },
    }
    there_and_back = JoinedSource([drive(), drive(offset_deg=180.0)], Path("there_and_back"))
    build_scene(there_and_back, "all", config_from_dict(MapConfig, settings), scene)


@dataclass(frozen=True, eq=False)
class Robot:
    """A drive beside the mapped one, as two cameras with calibrations of their own see it."""

    sources: dict[str, SimulatedSource]
    mounts: dict[str, Mount]

    @staticmethod
    def made() -> Robot:
        """A front camera and a rear one, each on its own drive: the rear one's robot is turned about."""
        rate = {"fps": 2.0 * RATE_HZ, "offset_m": 0.05}
        front, rear = drive(**rate), drive(**rate, offset_deg=180.0, fov_deg=76.0)
        assert front.T_base_cam is not None and rear.T_base_cam is not None
        about = SE3.exp([0.0, 0.0, np.pi, 0.0, 0.0, 0.0])
        mounts = {
            "front": Mount("front", front.T_base_cam),
            "rear": Mount("rear", about @ rear.T_base_cam),
        }
        return Robot({"front": front, "rear": rear}, mounts)

    def frames(self, together: bool, change: Change) -> Iterator[Frame]:
        """Frames of both, in order of time: at the same stamps, or in turn."""
        for index in range(0, len(self.sources["front"].records), 2):
            for name in self.sources:
                yield self.frame(name, index if together or name == "front" else index + 1, change)

    def frame(self, name: str, index: int, change: Change) -> Frame:
        """A frame of one camera."""
        frame = self.sources[name].read(index)
        image = change(name, index / (2.0 * RATE_HZ), frame.image)
        mount = self.mounts[name]
        return replace(frame, image=image, T_base_cam=mount.T_robot_cam, mount=mount, name=f"{name}/{index}")

    def truth(self, frame: Frame) -> SE3:
        """The true pose of the camera that took a frame."""
        name, _, index = frame.name.partition("/")
        T_map_cam = self.sources[name].records[int(index)].T_map_cam
        assert T_map_cam is not None
        return T_map_cam


def as_it_is(name: str, time_s: float, image: UInt8) -> UInt8:
    """Every image as the camera takes it."""
    return image


def covered(**spans_s: tuple[float, float]) -> Change:
    """Cameras that see nothing but noise for a time, each by its name."""
    rng = np.random.default_rng(5)

    def change(name: str, time_s: float, image: UInt8) -> UInt8:
        begin_s, end_s = spans_s.get(name, (0.0, 0.0))
        if not begin_s <= time_s < end_s:
            return image
        return np.asarray(np.clip(rng.normal(12.0, 2.0, image.shape), 0, 255), np.uint8)

    return change
