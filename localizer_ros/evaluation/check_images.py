"""Whether the images of a recording can be worked with: sharpness, exposure, images that do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from localizer_ros.core.preprocess import to_gray
from localizer_ros.core.types import SourceError, UInt8
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.evaluation.findings import Finding, graded

# Places of the recording that are looked at, two images each.
_PLACES = 24
# Images are compared at this width: what is blurred there is blurred for every extractor.
_WIDTH_PX = 640
# How little another blur changes. Sharp images have 0.3 (simulated) to 0.5, a Gaussian of 3 pixels makes it 0.64 to
# 0.8; a Kinect shaken by hand has 0.48 to 0.67, and can be mapped: half of its images are sharp enough.
_BLURRED = 0.63
_BLURRED_SHARE, _BLURRED_SHARE_BAD = 0.5, 0.9
# Grey levels below and above which a pixel tells nothing; half of an image of them leaves too few features.
_BLACK, _WHITE = 12, 250
_USELESS_PIXELS = 0.5
# A map loses a frame in ten without harm, and breaks where half of them are lost.
_FEW, _MANY = 0.1, 0.5


def check_images(source: FrameSource) -> tuple[dict[str, Any], list[Finding]]:
    """Figures of a sample of the images, and what is wrong with them.

    Raises:
        SourceError: not one of the images can be read.
    """
    records = source.records
    sample = [int(i) for i in np.unique(np.linspace(0, len(records) - 1, min(len(records), _PLACES)))]
    images: dict[int, UInt8] = {}
    unreadable: list[int] = []
    error: SourceError | None = None
    for index in sorted({i + k for i in sample for k in range(2) if i + k < len(records)}):
        try:
            images[index] = small_gray(source.read(index).image)
        except SourceError as problem:
            unreadable.append(index)
            error = problem
    if error is not None and not images:
        raise error
    picked = [i for i in sample if i in images]
    blur = {i: blur_of(images[i]) for i in picked}
    black = {i: float(np.mean(images[i] <= _BLACK)) for i in picked}
    white = {i: float(np.mean(images[i] >= _WHITE)) for i in picked}
    pairs = [i for i in picked if i + 1 in images and _camera_moves(records, i)]
    repeated = [i for i in pairs if np.array_equal(images[i], images[i + 1])]
    frozen = [i + 1 for i in repeated if _repeats_again(source, i + 1, images[i + 1])]
    dark = [i for i in picked if black[i] > _USELESS_PIXELS]
    bright = [i for i in picked if white[i] > _USELESS_PIXELS]
    # In darkness nothing is sharp; one reason is enough.
    blurred = [i for i in picked if blur[i] > _BLURRED and i not in dark and i not in bright]
    facts = {
        "frames_checked": len(picked),
        "blur_median": float(np.median(list(blur.values()))) if picked else None,
        "blurred_fraction": len(blurred) / max(len(picked), 1),
        "brightness_median": float(np.median([images[i].mean() for i in picked])) if picked else None,
        "repeated_fraction": len(repeated) / len(pairs) if pairs else None,
    }
    told = (
        ("unreadable", unreadable, len(images) + len(unreadable), "cannot be read", "record them again"),
        ("dark", dark, len(picked), "are black", "expose longer or switch on a light"),
        ("bright", bright, len(picked), "are white", "expose shorter or let the camera choose"),
        ("frozen", frozen, len(pairs), "stand still while the camera moves", "look for a driver that hangs"),
    )
    findings = []
    for check, at, of, what, advice in told:
        if severity := graded(len(at) / max(of, 1), _FEW, _MANY):
            text = f"{100 * len(at) / of:.0f} % of the frames {what}"
            findings.append(Finding(check, severity, text, advice, records[at[0]].name))
    if severity := graded(len(blurred) / max(len(picked), 1), _BLURRED_SHARE, _BLURRED_SHARE_BAD):
        text = f"{100 * len(blurred) / len(picked):.0f} % of the frames are blurred"
        advice = "drive slower, expose shorter or focus the lens"
        findings.append(Finding("blur", severity, text, advice, records[blurred[0]].name))
    return facts, findings


def small_gray(image: UInt8) -> UInt8:
    """Grey, at most ``_WIDTH_PX`` wide."""
    gray = to_gray(image)
    scale = _WIDTH_PX / gray.shape[1]
    if scale >= 1.0:
        return np.ascontiguousarray(gray)
    return np.asarray(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def blur_of(gray: UInt8) -> float:
    """How little an image changes when it is blurred: 0 for noise, towards 1 for what is blurred already.

    The gradient that is left after another blur, whatever the contrast (Crete et al., "The blur effect", 2007);
    the worse of the two directions is taken, since motion blurs in one.
    """
    # A fine texture of sensor noise would count as sharpness.
    image = cv2.GaussianBlur(gray, (0, 0), 0.7).astype(np.float32)
    worst = 0.0
    for axis, size in ((1, (9, 1)), (0, (1, 9))):
        before = np.abs(np.diff(image, axis=axis))
        after = np.abs(np.diff(cv2.blur(image, size), axis=axis))
        total = float(before.sum())
        if total > 0.0:
            worst = max(worst, 1.0 - float(np.maximum(before - after, 0.0).sum()) / total)
    return worst


def _camera_moves(records: Sequence[FrameRecord], index: int) -> bool:
    """Whether the next frame must look different: poses differ, or nothing is known of them."""
    a, b = records[index], records[index + 1]
    if a.sequence != b.sequence:
        return False
    if a.T_map_cam is None or b.T_map_cam is None:
        return True
    # A ten-thousandth of a radian is a twentieth of a pixel.
    return a.T_map_cam.distance_to(b.T_map_cam) > 1e-3 or a.T_map_cam.angle_to(b.T_map_cam) > 1e-4


def _repeats_again(source: FrameSource, index: int, gray: UInt8) -> bool:
    """Whether the next image is the same as well: a camera slower than its stamps repeats an image once."""
    if index + 1 >= len(source.records):
        return False
    try:
        return bool(np.array_equal(gray, small_gray(source.read(index + 1).image)))
    except SourceError:
        return False
