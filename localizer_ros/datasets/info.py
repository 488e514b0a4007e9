"""What is in a recording, and whether it is good enough to make a map of: sharpness, stamps, poses that fit
the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3, skew
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.source import FrameRecord, FrameSource

Array = NDArray[np.float64]

# Variance of the Laplacian at 320 pixels width: hand-held recordings have 120 to 600, and about 50 when
# blurred by a Gaussian of 2 pixels at 640.
_BLURRED = 60.0
# At 640 pixels width. Recordings with good poses have 0.6 to 1.2; with poses 0.1 s late 5.7, and 3.3 with
# the focal length of the depth camera (7-Scenes).
_EPIPOLAR_PX = 3.0
_PAIR_NS = 1_000_000_000
_PAIR_RAD = np.deg2rad(12.0)


def info(source: FrameSource, check_images: bool = True) -> dict[str, Any]:
    """A summary of plain values, for people and for JSON.

    Args:
        source: the recording.
        check_images: read about forty images for sharpness and for whether they fit the poses.

    Returns:
        ``path, format, frames, sequences {name: frames}, splits {name: frames}, duration_s, fps, gaps,
        camera, ground_truth {name, frames, path_length_m, extent_m}, coverage, odometry, base_to_camera_known,
        capture``, what the format adds (of a bag its topics and frames, and whether images are taken as rectified),
        and ``problems``, one line each with what to do about it. Unknown values are None.

    Raises:
        SourceError: an image cannot be read.
    """
    records = source.records
    problems = list(getattr(source, "problems", []))
    sequences = _sequences(records)
    steps_s = np.concatenate([_steps_s(part) for part in sequences.values()])
    step_s = float(np.median(steps_s)) if steps_s.size else None
    gaps = _gaps(sequences, step_s)
    if gaps:
        problems.append(
            f"{len(gaps)} gaps in time, the longest {max(gap['seconds'] for gap in gaps):.2f} s: frames were lost"
        )
    camera = source.camera
    summary: dict[str, Any] = {
        "path": str(source.path),
        "format": source.format,
        "frames": len(records),
        "sequences": {name: len(part) for name, part in sequences.items()},
        "splits": {name: len(source.split(name).records) for name in source.splits},
        "duration_s": float(sum(_duration_s(part) for part in sequences.values())),
        "fps": 1.0 / step_s if step_s else None,
        "gaps": gaps,
        "camera": {
            **camera.to_dict(),
            "horizontal_fov_deg": float(np.rad2deg(2 * np.arctan(camera.width_px / (2 * camera.K[0, 0])))),
        },
        "ground_truth": _ground_truth(source, sequences, problems),
        "coverage": _coverage(records),
        "odometry": None
        if source.odometry is None
        else {
            "poses": len(source.odometry),
            "path_length_m": source.odometry.length_m,
            "covariance_known": source.odometry.covariances is not None,
        },
        "base_to_camera_known": source.T_base_cam is not None,
        "capture": _capture(source, sequences, problems) if check_images else None,
        **getattr(source, "details", {}),
        "problems": problems,
    }
    return summary


def _sequences(records: Any) -> dict[str, list[FrameRecord]]:
    parts: dict[str, list[FrameRecord]] = {}
    for record in records:
        parts.setdefault(record.sequence, []).append(record)
    return parts


def _steps_s(part: list[FrameRecord]) -> Array:
    return 1e-9 * np.diff(np.array([record.stamp_ns for record in part], dtype=np.int64)).astype(np.float64)


def _duration_s(part: list[FrameRecord]) -> float:
    return 1e-9 * (part[-1].stamp_ns - part[0].stamp_ns)


def _gaps(sequences: dict[str, list[FrameRecord]], step_s: float | None) -> list[dict[str, Any]]:
    """Where more than three frames in a row are missing."""
    return [
        {"sequence": name, "after": part[i].name, "seconds": float(seconds)}
        for name, part in sequences.items()
        for i, seconds in enumerate(_steps_s(part))
        if step_s is not None and seconds > 4.0 * step_s
    ]


def _ground_truth(
    source: FrameSource, sequences: dict[str, list[FrameRecord]], problems: list[str]
) -> dict[str, Any]:
    posed = [record.T_map_cam for record in source.records if record.T_map_cam is not None]
    if not posed:
        problems.append("no ground truth: poses must come from `localizer sfm` before a map can be made")
        return {"name": "none", "frames": 0, "path_length_m": None, "extent_m": None, "jumps": []}
    if len(posed) < len(source.records):
        problems.append(f"{len(source.records) - len(posed)} of {len(source.records)} frames have no pose")
    length, jumps = 0.0, []
    for name, part in sequences.items():
        known = [(r.name, r.stamp_ns, r.T_map_cam) for r in part if r.T_map_cam is not None]
        moves = np.array([a[2].distance_to(b[2]) for a, b in pairwise(known)])
        seconds = np.array([1e-9 * (b[1] - a[1]) for a, b in pairwise(known)])
        length += float(moves.sum())
        if len(moves) < 5:
            continue
        speeds = moves / seconds
        # A jump is far above the usual speed and above that of its neighbours.
        usual = float(np.percentile(speeds, 90))
        for i in np.flatnonzero((speeds > 5.0 * usual) & (moves > 0.05)):
            jumps.append({"sequence": name, "at": known[i + 1][0], "metres": float(moves[i])})
    if jumps:
        problems.append(f"ground truth jumps {len(jumps)} times, first at {jumps[0]['at']}: is it one map?")
    positions = np.stack([T.t for T in posed])
    return {
        "name": source.ground_truth,
        "frames": len(posed),
        "path_length_m": length,
        "extent_m": np.ptp(positions, axis=0).tolist(),
        "jumps": jumps,
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


def _capture(
    source: FrameSource, sequences: dict[str, list[FrameRecord]], problems: list[str]
) -> dict[str, Any]:
    """Sharpness, brightness, and whether matches between nearby frames lie on the epipolar lines of their
    poses.

    That the lines fit does not prove the calibration: moving straight ahead hides a wrong focal length, and
    nothing here sees a wrong scale.
    """
    count = len(source.records)
    sample = np.unique(np.linspace(0, count - 1, min(count, 24)).astype(int))
    sharpness, brightness = [], []
    for index in sample:
        gray = to_gray(source.read(int(index)).image)
        scale = min(1.0, 320.0 / gray.shape[1])
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        sharpness.append(float(cv2.Laplacian(small, cv2.CV_64F).var()))
        brightness.append(float(small.mean()))
    blurred = float(np.mean(np.array(sharpness) < _BLURRED))
    if blurred > 0.3:
        problems.append(
            f"{100 * blurred:.0f} % of the frames are blurred or bare: drive slower, or expose shorter"
        )
    if np.median(brightness) < 25.0 or np.median(brightness) > 230.0:
        problems.append(f"images are very dark or bright (median grey {np.median(brightness):.0f} of 255)")
    capture: dict[str, Any] = {
        "frames_checked": len(sample),
        "sharpness_median": float(np.median(sharpness)),
        "sharpness_p10": float(np.percentile(sharpness, 10)),
        "blurred_fraction": blurred,
        "brightness_median": float(np.median(brightness)),
    }
    errors, inverted = [], []
    for first, second, T_first_second, T_inverted in _pairs(source, sequences):
        matches = _matches(first, second)
        if matches is not None:
            errors.append(_epipolar_error_px(*matches, first.camera, T_first_second))
            inverted.append(_epipolar_error_px(*matches, first.camera, T_inverted))
    capture["pose_check_pairs"] = len(errors)
    capture["epipolar_error_px"] = float(np.median(errors)) if errors else None
    if errors and np.median(errors) > _EPIPOLAR_PX * source.camera.width_px / 640:
        line = f"poses and images disagree by {np.median(errors):.1f} px (epipolar error)"
        if np.median(inverted) < 0.5 * np.median(errors):
            problems.append(f"{line}; the inverse poses fit: are they world to camera?")
        else:
            problems.append(f"{line}: wrong calibration, stamps of images and poses shifted, or bad poses")
    return capture


def _pairs(
    source: FrameSource, sequences: dict[str, list[FrameRecord]], wanted: int = 12
) -> Iterator[tuple[Frame, Frame, SE3, SE3]]:
    """Pairs of frames near enough to match and far enough apart to say something.

    Yields:
        The frames, the pose of the second in the first, and the same if the given poses were world to camera.
    """
    position = {record.name: index for index, record in enumerate(source.records)}
    candidates = []
    for part in sequences.values():
        posed = [(record, record.T_map_cam) for record in part if record.T_map_cam is not None]
        for i in range(0, len(posed), max(1, len(source.records) // 60)):
            first, T_i = posed[i]
            # The farthest within a second that still looks the same way: the more motion the more there is
            # to see.
            for second, T_j in reversed(posed[i + 1 : i + 60]):
                near = second.stamp_ns - first.stamp_ns <= _PAIR_NS and T_i.angle_to(T_j) < _PAIR_RAD
                if near and T_i.distance_to(T_j) > 0.05:
                    candidates.append((first, second, T_i.inverse() @ T_j, T_i @ T_j.inverse()))
                    break
    step = max(1, len(candidates) // wanted)
    for a, b, T_a_b, T_inverted in candidates[::step][:wanted]:
        yield source.read(position[a.name]), source.read(position[b.name]), T_a_b, T_inverted


def _matches(first: Frame, second: Frame) -> tuple[Array, Array] | None:
    """Two (N, 2) arrays of pixels of the same things, or None when there are too few."""
    orb = cv2.ORB.create(1500)
    found = [orb.detectAndCompute(to_gray(frame.image), None) for frame in (first, second)]
    (points_a, descriptors_a), (points_b, descriptors_b) = found
    if descriptors_a is None or descriptors_b is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(descriptors_a, descriptors_b)
    good = [match for match in matches if match.distance < 40]
    if len(good) < 30:
        return None
    return (
        np.array([points_a[match.queryIdx].pt for match in good], dtype=np.float64),
        np.array([points_b[match.trainIdx].pt for match in good], dtype=np.float64),
    )


def _epipolar_error_px(pixels_a: Array, pixels_b: Array, camera: Camera, T_a_b: SE3) -> float:
    """Median distance of points to their epipolar lines under a relative pose."""
    rays_a, rays_b = _rays(pixels_a, camera), _rays(pixels_b, camera)
    E = skew(T_a_b.t) @ T_a_b.R
    lines_a, lines_b = rays_b @ E.T, rays_a @ E
    residual = np.abs(np.sum(rays_a * lines_a, axis=1))
    slope = np.sqrt(np.sum(lines_a[:, :2] ** 2, axis=1) + np.sum(lines_b[:, :2] ** 2, axis=1))
    return float(np.median(residual / np.maximum(slope, 1e-12)) * camera.K[0, 0])


def _rays(pixels: Array, camera: Camera) -> Array:
    """(N, 3) rays (x, y, 1) without distortion."""
    if camera.model == "equidistant" and camera.distorted:
        flat = cv2.fisheye.undistortPoints(pixels[:, None], camera.K, camera.distortion[:4])
    else:
        flat = cv2.undistortPoints(pixels[:, None], camera.K, camera.distortion)
    return np.column_stack([np.asarray(flat, np.float64).reshape(-1, 2), np.ones(len(pixels))])
