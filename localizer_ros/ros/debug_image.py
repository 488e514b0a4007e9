"""The image with what was made of it: keypoints, matches, the map where the pose puts it, and the status in words."""

from __future__ import annotations

import textwrap

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.preprocess import to_rgb
from localizer_ros.core.seen import Pixels, SeenPoints
from localizer_ros.core.types import Frame, LocalizerOutput, Status

COLOURS = {
    Status.TRACKING: (40, 170, 60),
    Status.DEGRADED: (230, 150, 20),
    Status.LOST: (210, 40, 40),
    Status.INITIALIZING: (90, 90, 200),
}
KEYPOINT, INLIER, REJECTED, PROJECTED = (150, 150, 150), (60, 220, 80), (235, 50, 50), (70, 150, 255)
_WHITE = (255, 255, 255)
# Wider images cost more than they show; in narrower ones the words would hide the points.
_LARGEST_WIDTH_PX, _SMALLEST_WIDTH_PX = 640, 480
_FONT, _FONT_SCALE, _LINE_PX, _MARGIN_PX = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 18, 6
# Sixteenths of a pixel, for points between pixels.
_SHIFT = 4


def debug_image(frame: Frame, output: LocalizerOutput) -> NDArray[np.uint8]:
    """(h, w, 3) RGB, 480 to 640 wide: the frame with points and words.

    Grey: detected. Green: matched with a point of the map, and explained by the pose. Red: matched and not explained.
    Blue: where the pose puts the points of the map, joined to their keypoints.
    """
    height_px, width_px = frame.image.shape[:2]
    scale = min(max(1.0, _SMALLEST_WIDTH_PX / width_px), _LARGEST_WIDTH_PX / width_px)
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    image = to_rgb(np.asarray(cv2.resize(frame.image, size, interpolation=method), np.uint8)).copy()
    if output.seen is not None:
        _draw_points(image, output.seen, scale)
    _write(image, _lines(output), COLOURS[output.status])
    return image


def _draw_points(image: NDArray[np.uint8], seen: SeenPoints, scale: float) -> None:
    keypoints, matched, projected = (
        _places(points, scale) for points in (seen.keypoints_px, seen.matched_px, seen.projected_px)
    )
    for place in keypoints:
        _circle(image, place, 1.5, KEYPOINT)
    if len(projected):
        for place, other, inlier in zip(matched, projected, seen.inliers, strict=True):
            if inlier:
                cv2.line(image, place, other, PROJECTED, 1, cv2.LINE_AA, _SHIFT)
                _circle(image, other, 1.0, PROJECTED)
    for place, inlier in zip(matched, seen.inliers, strict=True):
        _circle(image, place, 3.0, INLIER if inlier else REJECTED)


def _places(points_px: Pixels, scale: float) -> list[tuple[int, int]]:
    """As OpenCV wants them: fixed point, and within what it can draw."""
    places = np.clip(((points_px + 0.5) * scale - 0.5) * (1 << _SHIFT), -(2**20), 2**20)
    return [(int(x), int(y)) for x, y in np.nan_to_num(places)]


def _circle(
    image: NDArray[np.uint8], place: tuple[int, int], radius_px: float, colour: tuple[int, int, int]
) -> None:
    cv2.circle(image, place, round(radius_px * (1 << _SHIFT)), colour, 1, cv2.LINE_AA, _SHIFT)


def _lines(output: LocalizerOutput) -> list[str]:
    lines = [output.status.value]
    if output.estimate is not None and output.estimate.covariance is not None:
        S = output.estimate.covariance
        sigma_m = float(np.sqrt(max(0.0, np.linalg.eigvalsh(S[3:, 3:])[-1])))
        sigma_deg = float(np.degrees(np.sqrt(max(0.0, np.linalg.eigvalsh(S[:3, :3])[-1]))))
        lines[0] += f"  {sigma_m:.2f} m  {sigma_deg:.1f} deg  {output.timings_ms.get('total', 0.0):.0f} ms"
    seen = output.seen
    if seen is not None:
        detected = f"{len(seen.keypoints_px)} keypoints, " if len(seen.keypoints_px) else ""
        lines.append(f"{detected}{len(seen.matched_px)} matched, {int(seen.inliers.sum())} inliers")
    return [*lines, output.reason] if output.reason else lines


def _write(image: NDArray[np.uint8], lines: list[str], colour: tuple[int, int, int]) -> None:
    """Words on a dark ground, wrapped to the width of the image; the first line in a colour."""
    room_px = image.shape[1] - 2 * _MARGIN_PX
    wrapped = [part for line in lines for part in _wrapped(line, room_px)]
    ground_px = min(image.shape[0], _LINE_PX * len(wrapped) + _MARGIN_PX)
    image[:ground_px] //= 3
    for row, part in enumerate(wrapped):
        place = (_MARGIN_PX, _LINE_PX * (row + 1) - 2)
        written = colour if row == 0 else _WHITE
        cv2.putText(image, part, place, _FONT, _FONT_SCALE, written, 1, cv2.LINE_AA)


def _wrapped(line: str, room_px: int) -> list[str]:
    """In parts that fit, unless not even one letter does."""
    for count in range(len(line), 0, -1):
        parts = textwrap.wrap(line, count)
        if all(cv2.getTextSize(part, _FONT, _FONT_SCALE, 1)[0][0] <= room_px for part in parts):
            return parts
    return [line]
