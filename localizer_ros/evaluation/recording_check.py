"""Whether a recording is good enough to make a map of: sharpness, brightness, and poses that fit the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Frame
from localizer_ros.datasets.info import recording_info
from localizer_ros.datasets.source import FrameRecord, FrameSource, by_sequence
from localizer_ros.geometry.epipolar import epipolar_distances, essential_matrix
from localizer_ros.geometry.rays import undistorted

# Images looked at for sharpness and brightness, and pairs of frames for the poses.
_IMAGES = 24
_PAIRS = 12
# Variance of the Laplacian at 320 pixels width: hand-held recordings have 120 to 600, and about 50 when blurred by a
# Gaussian of 2 pixels at 640.
_BLURRED = 60.0
_MOST_BLURRED = 0.3
_DARK, _BRIGHT = 25.0, 230.0
# At 640 pixels width. Recordings with good poses have 0.6 to 1.2; with poses 0.1 s late 5.7, and 3.3 with the focal
# length of the depth camera (7-Scenes).
_EPIPOLAR_PX = 3.0
# Frames of a pair look the same way and are not too far apart to match, and see some parallax.
_PAIR_NS = 1_000_000_000
_PAIR_RAD = np.deg2rad(12.0)
_PAIR_M = 0.05


def recording_facts(source: FrameSource) -> dict[str, Any]:
    """What ``recording_info`` tells, and ``capture``: how good the images are and whether they fit the poses.

    About forty images are read. That they fit does not prove the calibration: moving straight ahead hides a wrong
    focal length, and nothing here sees a wrong scale.

    Raises:
        SourceError: an image cannot be read.
    """
    info = recording_info(source)
    images, image_problems = _check_images(source)
    poses, pose_problems = _check_poses(source)
    problems = [*info.pop("problems"), *image_problems, *pose_problems]
    return {**info, "capture": {**images, **poses}, "problems": problems}


def _check_images(source: FrameSource) -> tuple[dict[str, Any], list[str]]:
    """Sharpness and brightness, and what is wrong with them."""
    count = len(source.records)
    sample = np.unique(np.linspace(0, count - 1, min(count, _IMAGES)).astype(int))
    sharpness, brightness = [], []
    for index in sample:
        gray = to_gray(source.read(int(index)).image)
        scale = min(1.0, 320.0 / gray.shape[1])
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        sharpness.append(float(cv2.Laplacian(small, cv2.CV_64F).var()))
        brightness.append(float(small.mean()))
    blurred = float(np.mean(np.array(sharpness) < _BLURRED))
    level = float(np.median(brightness))
    problems = []
    if blurred > _MOST_BLURRED:
        problems.append(
            f"{100 * blurred:.0f} % of the frames are blurred or bare: drive slower, or expose shorter"
        )
    if not _DARK <= level <= _BRIGHT:
        problems.append(f"images are very dark or bright (median grey {level:.0f} of 255)")
    facts = {
        "frames_checked": len(sample),
        "sharpness_median": float(np.median(sharpness)),
        "sharpness_p10": float(np.percentile(sharpness, 10)),
        "blurred_fraction": blurred,
        "brightness_median": level,
    }
    return facts, problems


def _check_poses(source: FrameSource) -> tuple[dict[str, Any], list[str]]:
    """Whether matches between nearby frames lie on the epipolar lines of their poses, and what is wrong if not."""
    errors, inverted = [], []
    for first, second, T_first_second, T_inverted in _pairs(source):
        matches = _matches(first, second)
        if matches is not None:
            errors.append(_epipolar_error_px(*matches, first.camera, T_first_second))
            inverted.append(_epipolar_error_px(*matches, first.camera, T_inverted))
    error_px = float(np.median(errors)) if errors else None
    facts = {"pose_check_pairs": len(errors), "epipolar_error_px": error_px}
    if error_px is None or error_px <= _EPIPOLAR_PX * source.camera.width_px / 640:
        return facts, []
    line = f"poses and images disagree by {error_px:.1f} px (epipolar error)"
    if np.median(inverted) < 0.5 * error_px:
        return facts, [f"{line}; the inverse poses fit: are they world to camera?"]
    return facts, [f"{line}: wrong calibration, stamps of images and poses shifted, or bad poses"]


def _pairs(source: FrameSource) -> Iterator[tuple[Frame, Frame, SE3, SE3]]:
    """Pairs of frames near enough to match and far enough apart to say something.

    Yields:
        The frames, the pose of the second in the first, and the same if the given poses were world to camera.
    """
    position = {record.name: index for index, record in enumerate(source.records)}
    candidates = list(_candidates(by_sequence(source.records), max(1, len(source.records) // 60)))
    step = max(1, len(candidates) // _PAIRS)
    for a, b, T_a_b, T_inverted in candidates[::step][:_PAIRS]:
        yield source.read(position[a.name]), source.read(position[b.name]), T_a_b, T_inverted


def _candidates(
    sequences: Mapping[str, Sequence[FrameRecord]], step: int
) -> Iterator[tuple[FrameRecord, FrameRecord, SE3, SE3]]:
    """Every ``step``-th frame with the farthest one that still looks the same way: the more motion, the better."""
    for part in sequences.values():
        posed = [(record, record.T_map_cam) for record in part if record.T_map_cam is not None]
        for i in range(0, len(posed), step):
            first, T_i = posed[i]
            for second, T_j in reversed(posed[i + 1 : i + 60]):
                near = second.stamp_ns - first.stamp_ns <= _PAIR_NS and T_i.angle_to(T_j) < _PAIR_RAD
                if near and T_i.distance_to(T_j) > _PAIR_M:
                    yield first, second, T_i.inverse() @ T_j, T_i @ T_j.inverse()
                    break


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
    """Median Sampson distance of points to their epipolar lines under a relative pose."""
    rays_a, rays_b = undistorted(camera, pixels_a), undistorted(camera, pixels_b)
    distances = epipolar_distances(essential_matrix(T_a_b.matrix()), rays_b, rays_a)
    # The limits were measured with Sampson's distance, which has a sum where the other has a mean.
    return float(np.median(distances) / np.sqrt(2.0) * camera.K[0, 0])
