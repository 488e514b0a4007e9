"""Poses from images alone carried to the world: by known poses, or by a known length of the path.

A reconstruction knows neither where it is nor how large. What it was aligned by is part of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.reconstruction import Reconstruction

# Weight of orientations beside positions.
_ORIENTATIONS = 0.1
# Fewer poses leave a similarity open.
_FEWEST_POSES = 3


@dataclass(frozen=True, eq=False)
class Reference:
    """Known poses.

    Attributes:
        T_map_cam: by frame name.
        name: what they are, e.g. ``ground truth``.
    """

    T_map_cam: Mapping[str, SE3]
    name: str


def reference_poses(source: FrameSource, kind: str) -> Reference | None:
    """Poses of a recording's own to align to; None where there are none, or none are wanted.

    Args:
        source: the recording.
        kind: ``ground_truth``, ``odometry``, ``none``, or ``auto`` for the first of these that there is.

    Raises:
        SourceError: the recording has none of that kind.
    """
    truth = {r.name: r.T_map_cam for r in source.records if r.T_map_cam is not None}
    if truth and kind in ("auto", "ground_truth"):
        return Reference(truth, source.ground_truth)
    moved: dict[str, SE3] = {}
    if source.odometry is not None and source.T_base_cam is not None:
        for record in source.records:
            T_odom_base = source.odometry.at(record.stamp_ns)
            if T_odom_base is not None:
                moved[record.name] = T_odom_base @ source.T_base_cam
    if moved and kind in ("auto", "odometry"):
        return Reference(moved, "odometry")
    if kind in ("ground_truth", "odometry"):
        raise SourceError(f"{source.path}: has no {kind.replace('_', ' ')} to align to")
    return None


def aligned(found: Reconstruction, reference: Reference) -> tuple[Reconstruction, float]:
    """A reconstruction carried to known poses, and the RMS distance of camera positions, metres.

    Raises:
        SourceError: fewer than three of its frames have a reference pose, or these contradict it.
    """
    both = [n for n, name in enumerate(found.names) if name in reference.T_map_cam]
    if len(both) < _FEWEST_POSES:
        raise SourceError(
            f"alignment: {len(both)} placed frames have a reference pose, expected at least {_FEWEST_POSES}"
        )
    poses, rms_m = fit_similarity(found.T_map_cam, both, [reference.T_map_cam[found.names[n]] for n in both])
    return replace(found, T_map_cam=tuple(poses), aligned_by=reference.name), rms_m


def scaled(found: Reconstruction, length_m: float) -> Reconstruction:
    """A reconstruction whose path is as long as it is known to be; where it lies stays arbitrary."""
    scale = length_m / found.trajectory.length_m
    poses = tuple(SE3(T.R, scale * T.t) for T in found.T_map_cam)
    return replace(found, T_map_cam=poses, aligned_by=f"path length {length_m} m")


def fit_similarity(
    poses: Sequence[SE3], both: Sequence[int], reference: Sequence[SE3]
) -> tuple[list[SE3], float]:
    """All poses, carried by the similarity that fits camera positions best (least squares; Umeyama, 1991), and the RMS
    distance of positions, metres.

    Args:
        poses: of the reconstruction.
        both: indices of those that have a reference.
        reference: their reference poses.

    Raises:
        SourceError: the reference contradicts the reconstruction.
    """
    a = np.stack([poses[n].t for n in both])
    b = np.stack([T.t for T in reference])
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a0**2).sum() * (b0**2).sum())
    # Positions on a line, as of a straight path, leave the turn about it open; orientations do not. They count less,
    # because the reference may be of a body that the camera is mounted on at an angle.
    turns = np.mean([T.R @ poses[n].R.T for n, T in zip(both, reference, strict=True)], axis=0)
    u, _, vt = np.linalg.svd(b0.T @ a0 / max(size, 1e-12) + _ORIENTATIONS * turns)
    R = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    scale = float(np.einsum("ni,ij,nj->", b0, R, a0) / max(float((a0**2).sum()), 1e-12))
    if scale <= 0.0:
        raise SourceError(
            "alignment: positions and orientations of the reference contradict the reconstruction"
        )
    t = b.mean(axis=0) - scale * R @ a.mean(axis=0)
    carried = [SE3(R @ T.R, scale * R @ T.t + t) for T in poses]
    offsets = np.stack([carried[n].t for n in both]) - b
    return carried, float(np.sqrt(np.mean(np.sum(offsets**2, axis=1))))
