"""The poses that a recording is mapped with: its own, else its odometry's without the drift, else from its images."""

from __future__ import annotations

from pathlib import Path

import msgspec

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.progress import Progress
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.bag_choice import MAKES_POSES
from localizer_ros.datasets.derived import PosedSource
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.alignment import scaled
from localizer_ros.mapping.odometry_poses import CALIBRATED, corrected_odometry
from localizer_ros.mapping.reconstruction import reconstruct


def has_poses(source: FrameSource) -> bool:
    """Whether a recording has poses of its own."""
    return any(record.T_map_cam is not None for record in source.records)


def settings_for(source: FrameSource, config: StructureConfig) -> StructureConfig:
    """Settings of a map with these poses: those that images made are the camera's, and leave its calibration alone."""
    if not isinstance(source, PosedSource):
        return config
    change = msgspec.structs.replace
    freedom = CALIBRATED * config.bundle.camera_freedom
    return change(config, bundle=change(config.bundle, refine_extrinsics=False, camera_freedom=freedom))


def take_poses(
    source: FrameSource, config: StructureConfig, length_m: float | None, work: Path, progress: Progress
) -> FrameSource:
    """The recording with poses: its own, of odometry corrected by images, or of images alone.

    ``ground_truth`` of what comes back says which.

    Args:
        source: the recording, cut to the part to map.
        config: features, keyframes and matching.
        length_m: of the path; where it is given, images alone make the poses, and it gives their scale.
        work: what is kept for going on after an interruption.
        progress: told as it goes.

    Raises:
        SourceError: it has neither, or its images do not give what is missing.
    """
    if length_m is not None:
        return _from_images(source, config, length_m, work, progress)
    if has_poses(source):
        return source
    if source.odometry is not None:
        return corrected_odometry(source, config, work, progress)
    why = getattr(source, "pose_problem", None) or "it has no poses and no odometry"
    raise SourceError(f"{source.path}: {why if MAKES_POSES in why else f'{why}; {MAKES_POSES}'}")


def _from_images(
    source: FrameSource, config: StructureConfig, length_m: float, work: Path, progress: Progress
) -> FrameSource:
    found = scaled(reconstruct(source, config, work / "sfm", work, progress), length_m)
    poses = dict(zip(found.names, found.T_map_cam, strict=True))
    name = f"structure from motion, path of {length_m:g} m"
    return PosedSource(source, [poses.get(record.name) for record in source.records], name)
