"""Corners of images: found where there are none yet, and followed into the next image (Lucas and Kanade 1981)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from localizer_ros.core.types import Array, Camera, Float32, Frame, Mask, UInt8

_WINDOW_PX, _LEVELS = 15, 4
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
# A corner followed back must end where it began.
_BACK_PX = 0.25
# Around a corner that moves strangely there are none for so many times the distance between corners.
_STRANGE_SPACINGS = 2
# Of the strongest corner; what is weaker is noise.
_QUALITY = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An image to follow corners in.

    Attributes:
        stamp_ns: of the frame.
        camera: that took it.
        grey: (H, W), bright enough.
    """

    stamp_ns: int
    camera: Camera
    grey: UInt8

    @staticmethod
    def of(frame: Frame) -> View:
        """The view of a frame."""
        return View(frame.stamp_ns, frame.camera, frame.grey)


def follow(before: View, after: View, xy_px: Float32, guess_px: Array | Float32) -> tuple[Float32, Mask]:
    """(N, 2) where corners are in a later view, and (N,) which were found there and lead back.

    Args:
        before: where they are known.
        after: by the same camera.
        xy_px: (N, 2) in ``before``.
        guess_px: (N, 2) where to look in ``after``.
    """
    if len(xy_px) == 0:
        return xy_px, np.zeros(0, dtype=bool)
    options = {
        "winSize": (_WINDOW_PX, _WINDOW_PX),
        "maxLevel": _LEVELS,
        "criteria": _STOP,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    start = np.ascontiguousarray(xy_px, np.float32).reshape(-1, 1, 2)
    # OpenCV writes into it.
    guess = np.array(guess_px, np.float32).reshape(-1, 1, 2)
    there, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, after.grey, start, guess, **options)  # type: ignore[call-overload]
    # To lead back is a matter of tenths of a pixel: the coarse levels of the pyramid have nothing to say.
    options["maxLevel"] = 1
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        after.grey, before.grey, there, start.copy(), **options
    )
    good = (found[:, 0] > 0) & (found_back[:, 0] > 0)
    good &= np.linalg.norm((back - start)[:, 0], axis=1) < _BACK_PX
    size = np.array([after.camera.width_px, after.camera.height_px])
    xy = np.asarray(there, np.float32)[:, 0]
    return xy, good & np.all((xy >= 0.0) & (xy < size - 1.0), axis=1)


def new_corners(view: View, taken_px: Float32, count: int, strange_px: Float32 | None = None) -> Float32:
    """(M, 2) corners in the parts of an image that have none, at most what is missing to ``count``.

    Args:
        view: the image.
        taken_px: (N, 2) corners that there are.
        count: wanted in all.
        strange_px: (K, 2) where something does not move as the rest does: no corners around there.
    """
    height, width = view.grey.shape
    spacing = max(5, int(0.5 * np.sqrt(height * width / count)))
    missing = count - len(taken_px)
    if missing <= 0:
        return np.zeros((0, 2), np.float32)
    mask = np.full((height, width), 255, np.uint8)
    for x, y in np.rint(taken_px).astype(int):
        cv2.circle(mask, (int(x), int(y)), spacing, 0, -1)
    for x, y in np.rint(np.zeros((0, 2)) if strange_px is None else strange_px).astype(int):
        cv2.circle(mask, (int(x), int(y)), _STRANGE_SPACINGS * spacing, 0, -1)
    found = cv2.goodFeaturesToTrack(view.grey, missing, _QUALITY, spacing, mask=mask)
    return np.zeros((0, 2), np.float32) if found is None else np.asarray(found, np.float32)[:, 0]
