"""RootSIFT: SIFT (Lowe 2004) compared by Hellinger's distance (Arandjelovic and Zisserman 2012)."""

from __future__ import annotations

import cv2
import numpy as np

from localizer_ros.core.exposure import bright_grey
from localizer_ros.core.types import UInt8
from localizer_ros.features.local_features import LocalFeatures, no_features

# What OpenCV writes for the octave of the image at twice its size.
_FINEST_OCTAVE = 255


class RootSift:
    """SIFT keypoints with the square root of L1-normalised descriptors (Hellinger distance).

    The finest octave of SIFT works on the image at twice its size, which is where most of the time goes. Without it the
    image is handed over at half its size, so that OpenCV's first octave is the image's own resolution.

    Args:
        contrast: least contrast of a keypoint.
        max_image_px: a longer image side is scaled down to this first.
    """

    dimensions = 128
    signed = False

    def __init__(self, contrast: float, max_image_px: int) -> None:
        self._contrast, self._max_image_px = contrast, max_image_px
        self._detectors: dict[int, cv2.SIFT] = {}

    def extract(self, image: UInt8, max_keypoints: int, fine: bool) -> LocalFeatures:
        """See :meth:`Extractor.extract`."""
        pixels = bright_grey(image)
        height, width = pixels.shape
        scale = min(1.0, self._max_image_px / max(height, width)) * (1.0 if fine else 0.5)
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        detector = self._detectors.get(max_keypoints)
        if detector is None:
            # Precise upscaling: without it keypoints of the finest octave sit a quarter of a pixel off the others.
            detector = cv2.SIFT_create(  # type: ignore[attr-defined]
                nfeatures=max_keypoints, contrastThreshold=self._contrast, enable_precise_upscale=True
            )
            self._detectors[max_keypoints] = detector
        keypoints, raw = detector.detectAndCompute(pixels, None)
        if raw is None or len(keypoints) == 0:
            return no_features(self.dimensions)
        response = np.array([k.response for k in keypoints], dtype=np.float32)
        # SIFT repeats a keypoint for each of its orientations, and keeps ties beyond the number asked for.
        order = np.argsort(-response, kind="stable")[:max_keypoints]
        xy = np.array([k.pt for k in keypoints], dtype=np.float64)[order]
        octave = np.array([k.octave & 255 for k in keypoints])[order]
        shrink = np.array([width / pixels.shape[1], height / pixels.shape[0]])
        xy = (xy + 0.5) * shrink - 0.5
        root = np.sqrt(raw[order] / np.maximum(raw[order].sum(axis=1, keepdims=True), 1e-9))
        coarse = (octave != _FINEST_OCTAVE) if fine else np.ones(len(order), dtype=bool)
        return LocalFeatures(xy.astype(np.float32), root.astype(np.float32), coarse)
