"""What is in a recording, by its records alone: no image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.types import Array
from localizer_ros.datasets.bag_choice import MAKES_POSES
from localizer_ros.datasets.source import FrameRecord, FrameSource, broken_frames, by_sequence, camera_problem

# A gap is where more than three frames in a row are missing.
_GAP_STEPS = 4.0
# A jump is so many times faster than nine tenths of the motion, and not within the noise of poses.
_JUMP_SPEED = 5.0
_JUMP_M = 0.05


def recording_info(source: FrameSource) -> dict[str, Any]:
    """A summary of plain values, for people and for JSON.

    Args:
        source: the recording.

    Returns:
        ``path, format, frames, sequences {name: frames}, splits {name: frames}, stamps, duration_s, fps, gaps, camera,
        ground_truth {name, frames, path_length_m, extent_m, jumps}, coverage, odometry, base_to_camera_known``, what
        the format adds (of a bag its topics and frames, and whether images are taken as rectified), and ``problems``,
        one line each with what to do about it. Unknown values are None.
    """
    records = source.records
    sequences = by_sequence(records)
    steps_s = np.concatenate([_steps_s(part) for part in sequences.values()])
    timed = source.stamps == "recorded"
    step_s = float(np.median(steps_s)) if timed and steps_s.size else None
    gaps = _gaps(sequences, step_s)
    truth = _ground_truth(source, sequences)
    camera = source.camera
    return {
        "path": str(source.path),
        "format": source.format,
        "frames": len(records),
        "sequences": {name: len(part) for name, part in sequences.items()},
        "splits": {name: len(source.split(name).records) for name in source.splits},
        "stamps": source.stamps,
        "duration_s": float(sum(_duration_s(part) for part in sequences.values())) if timed else None,
        "fps": 1.0 / step_s if step_s else None,
        "gaps": gaps,
        "camera": {
            "known": camera_problem(source) is None,
            **camera.to_dict(),
            "horizontal_fov_deg": float(np.rad2deg(2 * np.arctan(camera.width_px / (2 * camera.K[0, 0])))),
        },
        "ground_truth": truth,
        "coverage": _coverage(records),
        "odometry": _odometry(source),
        "base_to_camera_known": source.T_base_cam is not None,
        **getattr(source, "details", {}),
        "problems": [
            *getattr(source, "problems", []),
            *_broken_problems(source),
            *_gap_problems(gaps),
            *_ground_truth_problems(truth, source),
        ],
    }


def _steps_s(part: Sequence[FrameRecord]) -> Array:
    return 1e-9 * np.diff(np.array([record.stamp_ns for record in part], dtype=np.int64)).astype(np.float64)


def _duration_s(part: Sequence[FrameRecord]) -> float:
    return 1e-9 * (part[-1].stamp_ns - part[0].stamp_ns)


def _gaps(sequences: Mapping[str, Sequence[FrameRecord]], step_s: float | None) -> list[dict[str, Any]]:
    return [
        {"sequence": name, "after": part[i].name, "seconds": float(steps_s[i])}
        for name, part in sequences.items()
        # Recordings that are mapped together need not have the same rate.
        for steps_s in (_steps_s(part),)
        for i in range(len(steps_s))
        if step_s is not None and steps_s[i] > _GAP_STEPS * max(step_s, float(np.median(steps_s)))
    ]


def _gap_problems(gaps: Sequence[Mapping[str, Any]]) -> list[str]:
    if not gaps:
        return []
    longest_s = max(gap["seconds"] for gap in gaps)
    return [f"{len(gaps)} gaps in time, the longest {longest_s:.2f} s: frames were lost"]


def _ground_truth(source: FrameSource, sequences: Mapping[str, Sequence[FrameRecord]]) -> dict[str, Any]:
    posed = [record.T_map_cam for record in source.records if record.T_map_cam is not None]
    if not posed:
        return {"name": "none", "frames": 0, "path_length_m": None, "extent_m": None, "jumps": []}
    length_m, jumps = 0.0, []
    for name, part in sequences.items():
        known = [(r.name, r.stamp_ns, r.T_map_cam) for r in part if r.T_map_cam is not None]
        moves_m = np.array([a[2].distance_to(b[2]) for a, b in pairwise(known)])
        seconds = np.array([1e-9 * (b[1] - a[1]) for a, b in pairwise(known)])
        length_m += float(moves_m.sum())
        # Stills need not follow each other.
        if len(moves_m) < 5 or source.stamps == "invented":
            continue
        speeds = moves_m / seconds
        usual = float(np.percentile(speeds, 90))
        for i in np.flatnonzero((speeds > _JUMP_SPEED * usual) & (moves_m > _JUMP_M)):
            jumps.append({"sequence": name, "at": known[i + 1][0], "metres": float(moves_m[i])})
    return {
        "name": source.ground_truth,
        "frames": len(posed),
        "path_length_m": length_m,
        "extent_m": np.ptp(np.stack([T.t for T in posed]), axis=0).tolist(),
        "jumps": jumps,
    }


def _broken_problems(source: FrameSource) -> list[str]:
    broken = broken_frames(source)
    names = [record.name for record in source.records if record.name in broken]
    if not names:
        return []
    return [
        f"{len(names)} of {len(source.records)} frames cannot be used, the first {names[0]}: {broken[names[0]]}"
    ]


def _ground_truth_problems(truth: Mapping[str, Any], source: FrameSource) -> list[str]:
    if not truth["frames"]:
        why = getattr(source, "pose_problem", None)
        return [why or f"no ground truth: {MAKES_POSES}"]
    problems = []
    frames = len(source.records)
    if truth["frames"] < frames and not any(
        "have no pose" in line for line in getattr(source, "problems", ())
    ):
        problems.append(f"{frames - truth['frames']} of {frames} frames have no pose")
    if jumps := truth["jumps"]:
        problems.append(f"ground truth jumps {len(jumps)} times, first at {jumps[0]['at']}: is it one map?")
    return problems


def _odometry(source: FrameSource) -> dict[str, Any] | None:
    if source.odometry is None:
        return None
    return {
        "poses": len(source.odometry),
        "path_length_m": source.odometry.length_m,
        "covariance_known": source.odometry.covariances is not None,
    }


def _coverage(records: Sequence[FrameRecord]) -> dict[str, Any] | None:
    """Which views of the place were recorded: a camera that comes back the other way sees another place.

    Returns:
        ``headings_deg``: how much of the full circle cameras looked into; ``seen_both_ways``: share of the frames near
        which (0.5 m, or 2 % of the extent) another looks the opposite way. None without poses.
    """
    posed = [record.T_map_cam for record in records if record.T_map_cam is not None]
    if not posed:
        return None
    ahead = np.stack([T.R[:, 2] for T in posed])
    up = np.mean([-T.R[:, 1] for T in posed], axis=0)
    up /= max(float(np.linalg.norm(up)), 1e-9)
    right = np.cross(ahead[0], up)
    right /= max(float(np.linalg.norm(right)), 1e-9)
    heading = np.degrees(np.arctan2(ahead @ right, ahead @ np.cross(up, right)))
    sector = 15.0
    sectors = np.unique(np.floor((heading + 180.0) / sector).astype(int) % int(360.0 / sector))
    positions = np.stack([T.t for T in posed])
    reach = max(0.5, 0.02 * float(np.max(np.ptp(positions, axis=0))))
    tree = cKDTree(positions)
    both = [
        bool(np.any(ahead[near] @ ahead[i] < -0.5))
        for i, near in enumerate(tree.query_ball_point(positions, reach))
    ]
    return {"headings_deg": sector * len(sectors), "seen_both_ways": float(np.mean(both))}
