"""A localization method in one file: wherever the camera is, it answers the first pose that was mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.front_end import Observation

FILE = "pose.txt"
SIGMA_RAD, SIGMA_M = 0.5, 2.0


def build(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """See :class:`localizer_ros.mapping.build.Builder`."""
    T_map_cam = source.records[0].T_map_cam
    assert T_map_cam is not None
    np.savetxt(folder / FILE, T_map_cam.matrix())
    return {"map": {"poses": 1}}


class ConstantPose:
    """Implements ``FrontEnd``: the same pose for every frame."""

    def __init__(self, T_map_cam: SE3, method: str) -> None:
        self._T_map_cam, self._method = T_map_cam, method

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        covariance = np.diag(np.repeat([SIGMA_RAD**2, SIGMA_M**2], 3))
        return Observation(PoseEstimate(frame.stamp_ns, self._T_map_cam, covariance, self._method))

    def reset(self) -> None:
        """See :class:`FrontEnd`."""

    def lost(self) -> None:
        """See :class:`FrontEnd`."""

    def close(self) -> None:
        """See :class:`FrontEnd`."""


def open_constant_pose(scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool) -> ConstantPose:
    """See :class:`localizer_ros.localization.open.Opener`."""
    return ConstantPose(SE3.from_matrix(np.loadtxt(scene_dir / FILE)), method)
