"""The work behind ``localizer sfm``: camera poses from images alone, as a trajectory and a model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localizer_ros.core.config.mapping import StructureConfig
from localizer_ros.core.config.schema import dump_yaml
from localizer_ros.core.files import new_folder
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.trajectory import UNKNOWN_SCALE
from localizer_ros.datasets.derived import readable
from localizer_ros.datasets.source import FrameSource, require_camera
from localizer_ros.mapping.alignment import Reference, aligned, scaled
from localizer_ros.mapping.reconstruction import reconstruct
from localizer_ros.mapping.work_folder import work_folder


def run_sfm(
    source: FrameSource,
    part: str,
    config: StructureConfig,
    out: Path,
    world: Reference | float | None = None,
    resume: bool = True,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Facts for the user, after ``trajectory.txt`` and the model were written to ``out``.

    Args:
        source: the recording, already cut to ``part``.
        part: name of that part, for the record.
        config: features and matching.
        out: folder of the result; appears whole, at the end.
        world: what gives place and scale: known poses, or the length of the path in metres, which gives scale alone.
            None leaves both arbitrary.
        resume: go on where an interrupted call stopped; else what it left is lost.
        progress: told as it goes.

    Raises:
        SourceError: ``out`` exists, or see :func:`reconstruct` and :func:`aligned`.
        ConfigError: the interrupted call had other settings or another recording.
    """
    rms_m = None
    source = readable(source)
    require_camera(source)
    with work_folder(out, source, part, dump_yaml(config), resume) as work, new_folder(out) as folder:
        found = reconstruct(source, config, folder, work, progress)
        if isinstance(world, Reference):
            found, rms_m = aligned(found, world)
        elif world is not None:
            found = scaled(found, world)
        trajectory = found.trajectory
        heading = "" if found.aligned_by else UNKNOWN_SCALE
        trajectory.write_tum(folder / "trajectory.txt", heading)
    return {
        "trajectory": str(out / "trajectory.txt"),
        "frames": len(source.records),
        "placed": len(trajectory),
        "points": found.points,
        "reprojection_error_px": found.reprojection_error_px,
        "place_and_scale_from": found.aligned_by or "nothing: arbitrary",
        "path_length_m" if found.aligned_by else "path_length_in_units_of_its_own": trajectory.length_m,
        "alignment_rms_m": rms_m,
        "alignment_rms_percent": 100.0 * rms_m / trajectory.length_m if rms_m is not None else None,
    }
