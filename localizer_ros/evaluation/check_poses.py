"""Whether the poses of a recording can be mapped with, by themselves and against odometry; no image is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.datasets.bag_choice import MAKES_POSES
from localizer_ros.datasets.source import FrameRecord, FrameSource, by_sequence
from localizer_ros.evaluation.findings import Finding, Severity, graded

# Second difference over first, medians. Recorded motion has 0.02 (a car) to 0.5 (shaken by hand); white noise alone has
# the square root of three.
_ROUGH, _ROUGH_BAD = 0.8, 1.3
# Shares of the frames without a pose.
_WITHOUT, _WITHOUT_BAD = 0.1, 0.5
# Wheels are calibrated to one in a hundred and worn to a few; beyond one in ten the poses have another unit.
_SCALE, _SCALE_BAD = 0.1, 0.3
_ODOMETRY_S = 1.0
# A camera that stays within a hand's breadth sees nothing at two angles that differ.
_STANDSTILL_M = 0.1
_FEWEST = 10
# A place is seen again when the camera looks the same way there, and was away in between.
_AGAIN_NS = 10_000_000_000
_SAME_WAY = 0.87


def check_poses(source: FrameSource) -> tuple[dict[str, Any], list[Finding]]:
    """How rough, how complete, how large and how covering the poses are, and what is wrong with them."""
    posed = [record for record in source.records if record.T_map_cam is not None]
    if not posed:
        driven = source.odometry is not None and source.T_base_cam is not None
        how = "`localizer map` corrects the odometry by images" if driven else MAKES_POSES
        advice = f"{how}; for localising in a map none are needed"
        return {}, [Finding("no_poses", "note" if driven else "doubtful", "no frame has a pose", advice)]
    parts = list(by_sequence(posed).values())
    rough = _roughness(parts)
    scale = _scale_to_odometry(source, posed)
    extent_m = float(np.max(np.ptp(np.stack([_pose(r).t for r in posed]), axis=0)))
    again = _seen_again(posed)
    facts = {"roughness": rough, "scale_to_odometry": scale, "extent_m": extent_m, "seen_again": again}
    findings = [
        *_missing(source.records, len(posed)),
        *_rough(rough, source),
        *_scaled(scale),
        *(_coverage(extent_m, again) if len(posed) >= _FEWEST else ()),
    ]
    return facts, findings


def _pose(record: FrameRecord) -> SE3:
    assert record.T_map_cam is not None
    return record.T_map_cam


def _missing(records: Sequence[FrameRecord], posed: int) -> list[Finding]:
    share = 1.0 - posed / len(records)
    severity = graded(share, _WITHOUT, _WITHOUT_BAD)
    if severity is None:
        return []
    where = next(record.name for record in records if record.T_map_cam is None)
    text = f"{100 * share:.0f} % of the frames have no pose and will not be mapped"
    return [Finding("missing_poses", severity, text, "see `localizer info` for their times", where)]


def _roughness(parts: Sequence[Sequence[FrameRecord]]) -> float | None:
    """Median second difference over median first difference of positions, or None where too few frames move."""
    first, second = [], []
    for part in parts:
        t = np.stack([_pose(record).t for record in part])
        stamps_s = np.array([record.stamp_ns - part[0].stamp_ns for record in part]) * 1e-9
        for k in range(1, len(part) - 1):
            before, after = stamps_s[k] - stamps_s[k - 1], stamps_s[k + 1] - stamps_s[k]
            if not 0.5 < before / after < 2.0:
                continue
            between = t[k - 1] + (t[k + 1] - t[k - 1]) * before / (before + after)
            # For even steps this is the second difference.
            second.append(2.0 * float(np.linalg.norm(t[k] - between)))
            first.append(0.5 * float(np.linalg.norm(t[k + 1] - t[k - 1])))
    if len(first) < _FEWEST or np.median(first) < 1e-9:
        return None
    return float(np.median(second) / np.median(first))


def _rough(rough: float | None, source: FrameSource) -> list[Finding]:
    # Stills are not a motion, however the poses are.
    if rough is None or source.stamps == "invented":
        return []
    severity = graded(rough, _ROUGH, _ROUGH_BAD)
    if severity is None:
        return []
    text = f"poses are noisy: from frame to frame they turn back by {rough:.1f} times the way they go"
    return [Finding("pose_noise", severity, text, "`localizer sfm --align ground_truth` makes smooth ones")]


def _scale_to_odometry(source: FrameSource, posed: Sequence[FrameRecord]) -> float | None:
    """How much longer the poses' ways are than the odometry's, median over a second each; None where unknown."""
    odometry = source.odometry
    if odometry is None:
        return None
    ratios = []
    T_base_cam = source.T_base_cam or SE3.identity()
    for i in range(0, len(posed), max(1, len(posed) // 200)):
        a = posed[i]
        later = (r for r in posed[i + 1 :] if r.stamp_ns - a.stamp_ns >= _ODOMETRY_S * 1e9)
        b = next(later, None)
        if b is None or b.sequence != a.sequence:
            continue
        T_a, T_b = odometry.at(a.stamp_ns), odometry.at(b.stamp_ns)
        if T_a is None or T_b is None:
            continue
        driven = (T_a @ T_base_cam).distance_to(T_b @ T_base_cam)
        # What turns in place tells nothing of the scale.
        if driven > 0.1:
            ratios.append(_pose(a).distance_to(_pose(b)) / driven)
    return float(np.median(ratios)) if len(ratios) >= _FEWEST else None


def _scaled(scale: float | None) -> list[Finding]:
    if scale is None:
        return []
    off = abs(float(np.log(max(scale, 1e-9))))
    severity = graded(off, _SCALE, _SCALE_BAD)
    if severity is None:
        return []
    text = f"poses move {scale:.2f} times as far as the odometry"
    return [Finding("pose_scale", severity, text, "give the length of the path: `localizer sfm --length M`")]


def _seen_again(posed: Sequence[FrameRecord]) -> float:
    """Share of the frames whose view was recorded before, after the camera had been away."""
    t = np.stack([_pose(record).t for record in posed])
    ahead = np.stack([_pose(record).R[:, 2] for record in posed])
    stamps = np.array([record.stamp_ns for record in posed])
    reach = max(0.5, 0.02 * float(np.max(np.ptp(t, axis=0))))
    step = max(1, len(posed) // 500)
    near = list(cKDTree(t).query_ball_point(t[::step], reach))
    again = [
        _any_earlier(np.array(found), i, stamps, ahead)
        for i, found in zip(range(0, len(posed), step), near, strict=True)
    ]
    return float(np.mean(again))


def _any_earlier(found: Array, i: int, stamps: Array, ahead: Array) -> bool:
    earlier = found[stamps[found] < stamps[i] - _AGAIN_NS]
    return bool(np.any(ahead[earlier] @ ahead[i] > _SAME_WAY))


def _coverage(extent_m: float, again: float) -> list[Finding]:
    if extent_m < _STANDSTILL_M:
        text = f"the camera stays within {extent_m:.2f} m: nothing is seen from two sides"
        severity: Severity = "bad"
        return [Finding("standstill", severity, text, "move the camera sideways and through the place")]
    if again == 0.0:
        text = "no place is seen twice: drift of the poses cannot be noticed"
        return [Finding("no_revisit", "note", text, "close a loop when you record next time")]
    return []
