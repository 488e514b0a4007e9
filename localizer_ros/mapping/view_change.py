"""Keyframes of a recording whose poses are unknown: frames that show something else than the last one, the sharp ones.

Points are followed from frame to frame by optical flow; how far they have moved across the image is how much the view
has changed. A camera that stands adds nothing, and thirty frames a second are no more keyframes than five.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from localizer_ros.core.progress import Progress
from localizer_ros.core.types import Float32, UInt8
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.evaluation.check_images import blur_of, small_gray

# Frames closer in time are not looked at: at ten a second flow follows a robot, and a hand, with ease.
_LOOKED_AT_NS = 90_000_000
# Flow is followed at this width, with so many points.
_WIDTH_PX, _POINTS = 320, 250
# A view has changed when one point in four has moved by this share of the image's width (three to four degrees of a
# usual lens; straight ahead, the points in the middle hardly move at all), or when fewer than this share of the points
# could be followed.
_MOVED, _MOVED_PERCENT, _FOLLOWED = 0.05, 75.0, 0.5
# From this share of the change on a sharper frame before the one that completes it is taken instead.
_NEARLY = 0.6


@dataclass
class _Followed:
    """Points that are followed since the last keyframe."""

    start: Float32
    now: Float32
    count: int


def changed_frames(source: FrameSource, progress: Progress) -> list[int]:
    """Ascending numbers of the frames that show something else than the last of them.

    Args:
        source: the recording; its poses are not looked at.
        progress: told as it goes.
    """
    looked_at = _spaced(source)
    kept = [looked_at[0]]
    last = _shrunk(source.read(looked_at[0]).image)
    followed = _points(last)
    # The sharpest frame since the view had nearly changed: its number and how blurred it is.
    best: tuple[float, int, UInt8] | None = None
    for n, i in enumerate(looked_at[1:], start=1):
        image = _shrunk(source.read(i).image)
        moved, share = _follow(followed, last, image)
        last = image
        other = source.records[i].sequence != source.records[kept[-1]].sequence
        if other or share < _FOLLOWED or moved > _NEARLY * _MOVED:
            blur = blur_of(image)
            best = (blur, i, image) if best is None or other or blur < best[0] else best
        if best is not None and (other or share < _FOLLOWED or moved > _MOVED):
            _, sharpest, its_image = best
            kept.append(sharpest)
            followed, best = _points(its_image), None
            if sharpest != i:
                _follow(followed, its_image, image)
        if n % 20 == 0 or n + 1 == len(looked_at):
            progress("choosing keyframes", n + 1, len(looked_at))
    return kept


def _spaced(source: FrameSource) -> list[int]:
    """Frames that are looked at: not closer in time than flow needs; all of a recording without times."""
    records = source.records
    if source.stamps == "invented":
        return list(range(len(records)))
    chosen = [0]
    for i in range(1, len(records)):
        if _apart(records[chosen[-1]], records[i]):
            chosen.append(i)
    return chosen


def _apart(a: FrameRecord, b: FrameRecord) -> bool:
    return b.sequence != a.sequence or b.stamp_ns - a.stamp_ns >= _LOOKED_AT_NS


def _shrunk(image: UInt8) -> UInt8:
    gray = small_gray(image)
    size = _WIDTH_PX, max(1, round(gray.shape[0] * _WIDTH_PX / gray.shape[1]))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def _points(image: UInt8) -> _Followed:
    found = cv2.goodFeaturesToTrack(image, _POINTS, 0.01, 6)
    xy = np.zeros((0, 2), np.float32) if found is None else np.asarray(found, np.float32).reshape(-1, 2)
    return _Followed(xy, xy.copy(), len(xy))


def _follow(followed: _Followed, last: UInt8, image: UInt8) -> tuple[float, float]:
    """How far points have moved since they were found, over the image's width, and the share of them still followed."""
    if len(followed.now) == 0:
        return 0.0, 0.0
    moved, status, _ = cv2.calcOpticalFlowPyrLK(last, image, followed.now[:, None], None)  # type: ignore[call-overload]
    good = status.reshape(-1) == 1
    followed.start, followed.now = followed.start[good], np.asarray(moved, np.float32).reshape(-1, 2)[good]
    if not good.any():
        return 0.0, 0.0
    way = float(np.percentile(np.linalg.norm(followed.now - followed.start, axis=1), _MOVED_PERCENT))
    return way / image.shape[1], len(followed.now) / followed.count
