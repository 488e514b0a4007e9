"""Whether poses, camera and images of a recording fit each other: epipolar errors, and what would make them smaller.

Matches of nearby frames are held against the given poses, and against what may be meant instead: poses the wrong way
around, another convention of camera axes, another time, another focal length or principal point. What explains the
matches much better than what was given is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from localizer_ros.core.camera_frames import optical_in
from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Frame, SourceError
from localizer_ros.datasets.source import FrameRecord, FrameSource, by_sequence
from localizer_ros.evaluation.findings import Finding, Severity, graded
from localizer_ros.geometry.epipolar import epipolar_distances, essential_matrix
from localizer_ros.geometry.rays import undistorted

_PAIRS = 24
_FEWEST_PAIRS = 5
# Frames of a pair look the same way and are not too far apart to match, and see some parallax.
_PAIR_NS = 1_000_000_000
_PAIR_RAD = np.deg2rad(20.0)
_PAIR_M = 0.05
# Errors are told at this width. Exact poses of simulated drives leave 0.4, measured ones of public recordings (a car, a
# hand-held Kinect with motion capture, KinectFusion) 0.8 to 1.8; noise of half a degree and 3 cm gives 2.7 to 3.2.
_WIDTH_PX = 640
_ERROR_PX, _ERROR_BAD_PX = 2.4, 5.0
# Another explanation is told when it leaves so little of the error in most of the pairs. The best wrong one of the
# recordings above leaves 0.77; a time off by 0.1 s or a focal length by a tenth leave 0.1 to 0.5. Below twice the error
# of exact poses there is nothing to explain.
_EXPLAINS, _MOST_PAIRS = 0.6, 0.75
_NOTHING_PX = 0.8


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two frames and the rays (z = 1) of the things that both see."""

    first: FrameRecord
    second: FrameRecord
    rays_first: Array
    rays_second: Array


@dataclass(frozen=True, eq=False)
class _Explanation:
    """What may be meant instead of what was given; ``relative`` gives ``T_first_second``, ``rays`` changes rays."""

    check: str
    text: str
    advice: str
    relative: Callable[[_Pair], SE3 | None]
    rays: Callable[[Array], Array] = lambda rays: rays
    focal_factor: float = 1.0


def check_geometry(source: FrameSource) -> tuple[dict[str, Any], list[Finding]]:
    """The epipolar error, and what is wrong. That there is none does not prove the calibration: moving straight ahead
    hides a wrong focal length, and nothing here sees a wrong scale.
    """
    pairs = list(_pairs(source))
    focal_px = float(source.camera.K[0, 0]) * _WIDTH_PX / source.camera.width_px
    facts: dict[str, Any] = {"pose_check_pairs": len(pairs), "epipolar_error_px": None}
    if len(pairs) < _FEWEST_PAIRS:
        return facts, []
    given = _errors(pairs, _Explanation("", "", "", _given), focal_px)
    error_px = float(np.median(given))
    facts["epipolar_error_px"] = error_px
    if error_px <= _NOTHING_PX:
        return facts, []
    best: _Explanation | None = None
    left_px = _EXPLAINS * error_px
    for explanation in _explanations(source, focal_px):
        errors = _errors(pairs, explanation, focal_px)
        known = np.isfinite(errors)
        if known.mean() < _MOST_PAIRS or np.mean(errors[known] < given[known]) < _MOST_PAIRS:
            continue
        if np.median(errors[known]) < min(left_px, _EXPLAINS * np.median(given[known])):
            best, left_px = explanation, float(np.median(errors[known]))
    if best is not None:
        worst: Severity = "bad" if error_px > _ERROR_PX else "doubtful"
        text = f"{best.text}: {error_px:.1f} px of epipolar error, {left_px:.1f} px with that"
        return facts, [Finding(best.check, worst, text, best.advice)]
    if severity := graded(error_px, _ERROR_PX, _ERROR_BAD_PX):
        text = f"poses and images disagree by {error_px:.1f} px (epipolar error)"
        advice = "poses are noisy or the calibration is wrong; `localizer sfm` makes poses that fit"
        return facts, [Finding("pose_noise", severity, text, advice)]
    return facts, []


def _errors(pairs: Sequence[_Pair], explanation: _Explanation, focal_px: float) -> Array:
    """(N,) median Sampson distance of each pair, pixels; NaN where the pose is unknown."""
    errors = np.full(len(pairs), np.nan)
    for n, pair in enumerate(pairs):
        T_first_second = explanation.relative(pair)
        if T_first_second is None:
            continue
        E = essential_matrix(T_first_second.matrix())
        a, b = explanation.rays(pair.rays_first), explanation.rays(pair.rays_second)
        # The limits were measured with Sampson's distance, which has a sum where the other has a mean.
        distance = float(np.median(epipolar_distances(E, b, a))) / np.sqrt(2.0)
        errors[n] = distance * focal_px * explanation.focal_factor
    return errors


def _given(pair: _Pair) -> SE3 | None:
    assert pair.first.T_map_cam is not None and pair.second.T_map_cam is not None
    return pair.first.T_map_cam.inverse() @ pair.second.T_map_cam


# --- what may be meant instead ---


def _explanations(source: FrameSource, focal_px: float) -> Iterator[_Explanation]:
    yield _Explanation(
        "inverse_poses",
        "poses look like world to camera",
        "invert them: T_map_cam is the camera in the map",
        _inverse,
    )
    for convention, name in _CONVENTIONS.items():
        yield _Explanation(
            "frame_convention",
            f"the camera's axes look like {name}, not optical (x right, y down, z forward)",
            f"map it with --camera-convention {convention}, and set camera_convention: {convention} on a robot whose "
            "images have that frame; or give poses of the optical frame",
            _turned(optical_in(convention)),
        )
    if source.stamps == "recorded":
        yield from _times(source)
    for factor in np.geomspace(0.6, 1.7, 24):
        yield _Explanation(
            "focal_length",
            f"the focal length is wrong, about {factor * source.camera.K[0, 0]:.0f} px fit",
            "calibrate the camera, or check that the calibration is of this image size",
            _given,
            _zoomed(float(factor)),
            float(factor),
        )
    half = 0.5 * _WIDTH_PX
    scale = source.camera.width_px / _WIDTH_PX
    for u in np.linspace(-0.3, 0.3, 13) * half:
        for v in np.linspace(-0.3, 0.3, 13) * half:
            cx, cy = source.camera.K[0, 2] + u * scale, source.camera.K[1, 2] + v * scale
            yield _Explanation(
                "principal_point",
                f"the principal point is wrong, about ({cx:.0f}, {cy:.0f}) px fits",
                "calibrate the camera, or check whether images were cropped",
                _given,
                _moved(np.array([u, v]) / focal_px),
            )


def _inverse(pair: _Pair) -> SE3 | None:
    assert pair.first.T_map_cam is not None and pair.second.T_map_cam is not None
    return pair.first.T_map_cam @ pair.second.T_map_cam.inverse()


_CONVENTIONS = {
    "forward": "a robot's (x forward, y left, z up)",
    "opengl": "OpenGL's (x right, y up, z back)",
}


def _turned(T_given_optical: SE3) -> Callable[[_Pair], SE3 | None]:
    def relative(pair: _Pair) -> SE3 | None:
        T = _given(pair)
        return None if T is None else T_given_optical.inverse() @ T @ T_given_optical

    return relative


def _times(source: FrameSource) -> Iterator[_Explanation]:
    paths = {
        name: Trajectory.from_items((r.stamp_ns, r.T_map_cam) for r in part if r.T_map_cam is not None)
        for name, part in by_sequence(source.records).items()
    }
    for shift_s in (*np.arange(-0.6, 0.0, 0.02), *np.arange(0.02, 0.61, 0.02)):
        late = "later" if shift_s > 0.0 else "earlier"
        yield _Explanation(
            "time_offset",
            f"images belong to poses {abs(shift_s):.2f} s {late}",
            "synchronise their clocks, or correct the stamps by it",
            _shifted(paths, round(shift_s * 1e9)),
        )


def _shifted(paths: Mapping[str, Trajectory], shift_ns: int) -> Callable[[_Pair], SE3 | None]:
    def relative(pair: _Pair) -> SE3 | None:
        path = paths[pair.first.sequence]
        first, second = (path.at(r.stamp_ns + shift_ns) for r in (pair.first, pair.second))
        return None if first is None or second is None else first.inverse() @ second

    return relative


def _zoomed(factor: float) -> Callable[[Array], Array]:
    return lambda rays: rays / factor


def _moved(by: Array) -> Callable[[Array], Array]:
    return lambda rays: rays - by


# --- pairs ---


def _pairs(source: FrameSource) -> Iterator[_Pair]:
    """Pairs of frames near enough to match and far enough apart to say something; about fifty images are read."""
    position = {record.name: index for index, record in enumerate(source.records)}
    candidates = list(_candidates(by_sequence(source.records), max(1, len(source.records) // 100)))
    picked = np.linspace(0, len(candidates) - 1, min(_PAIRS, len(candidates))).astype(int)
    for a, b in (candidates[int(i)] for i in picked):
        try:
            first, second = source.read(position[a.name]), source.read(position[b.name])
        except SourceError:
            continue
        matches = _matches(first, second)
        if matches is not None:
            rays = undistorted(first.camera, matches[0]), undistorted(second.camera, matches[1])
            yield _Pair(a, b, *rays)


def _candidates(
    sequences: Mapping[str, Sequence[FrameRecord]], step: int
) -> Iterator[tuple[FrameRecord, FrameRecord]]:
    """Every ``step``-th frame with the farthest one that still looks the same way: the more motion, the better."""
    for part in sequences.values():
        posed = [(record, record.T_map_cam) for record in part if record.T_map_cam is not None]
        for i in range(0, len(posed), step):
            first, T_i = posed[i]
            for second, T_j in reversed(posed[i + 1 : i + 60]):
                near = second.stamp_ns - first.stamp_ns <= _PAIR_NS and T_i.angle_to(T_j) < _PAIR_RAD
                if near and T_i.distance_to(T_j) > _PAIR_M:
                    yield first, second
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
