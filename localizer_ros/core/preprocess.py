"""Image to network input; the only copy of this code, used by training, evaluation and the node.

A network sees one ideal pinhole camera (the *target*): whatever camera delivers the frame is undistorted, scaled and
cropped onto it, so intrinsics need not be those of the training camera.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.exposure import brightened
from localizer_ros.core.types import Array, Camera, ConfigError


def network_camera(camera: Camera, width_px: int, height_px: int) -> Camera:
    """The ideal pinhole a network is trained for: as wide a view of ``camera`` as fits the size without distortion.

    The focal length is the same in x and y; the principal point is the camera's, seen through the centred crop.
    """
    scale = max(width_px / camera.width_px, height_px / camera.height_px)
    f = 0.5 * (camera.K[0, 0] + camera.K[1, 1]) * scale
    cx = (camera.K[0, 2] + 0.5 - camera.width_px / 2) * scale + width_px / 2 - 0.5
    cy = (camera.K[1, 2] + 0.5 - camera.height_px / 2) * scale + height_px / 2 - 0.5
    return Camera.pinhole(width_px, height_px, f, f, cx, cy)


class ImageWarper:
    """Resamples images of one camera onto a target camera; tables are computed once.

    Args:
        source: camera of the incoming images, with or without distortion.
        target: ideal pinhole of the output.
    """

    def __init__(self, source: Camera, target: Camera) -> None:
        if target.distorted:
            raise ConfigError("target camera: expected no distortion")
        self.source, self.target = source, target
        # Shrinking by interpolation alone would alias: bring the image near the target's scale by averaging first.
        shrink = min(1.0, max(target.K[0, 0] / source.K[0, 0], target.K[1, 1] / source.K[1, 1]))
        self._middle = source.scaled(*_averaged_size(source.width_px, source.height_px, shrink))
        self._maps: tuple[NDArray[np.int16], NDArray[np.uint16]] | None = None
        scaled = self._middle.scaled(target.width_px, target.height_px)
        if not scaled.same_as(target, tolerance_px=1e-3):
            if source.model == "equidistant":
                maps = cv2.fisheye.initUndistortRectifyMap(
                    self._middle.K,
                    source.distortion[:4] if source.distortion.size >= 4 else np.zeros(4),
                    np.eye(3),
                    target.K,
                    (target.width_px, target.height_px),
                    cv2.CV_16SC2,
                )
            else:
                maps = cv2.initUndistortRectifyMap(
                    self._middle.K,
                    source.distortion if source.distorted else None,  # type: ignore[arg-type]
                    np.eye(3),
                    target.K,
                    (target.width_px, target.height_px),
                    cv2.CV_16SC2,
                )
            self._maps = (np.asarray(maps[0], np.int16), np.asarray(maps[1], np.uint16))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W[, 3]) uint8 of the source camera to (h, w[, 3]) uint8 of the target; black outside the view."""
        middle_size = (self._middle.width_px, self._middle.height_px)
        if image.shape[1::-1] != middle_size:
            image = np.asarray(cv2.resize(image, middle_size, interpolation=cv2.INTER_AREA), np.uint8)
        if self._maps is not None:
            return np.asarray(cv2.remap(image, *self._maps, interpolation=cv2.INTER_LINEAR), np.uint8)
        size = (self.target.width_px, self.target.height_px)
        if image.shape[1::-1] != size:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        return image


def _averaged_size(width_px: int, height_px: int, shrink: float) -> tuple[int, int]:
    """(width, height) that an image is averaged to before it is interpolated to a smaller scale.

    Means of whole blocks of pixels take a tenth of the time of other means, and interpolation is quick. Where they
    leave it a factor of more than 1.3, the mean goes all the way: of gratings too fine to be seen, up to a third of the
    contrast comes back at 1.25, where a mean leaves a quarter.
    """
    blocks = range(1, int(1.0 / shrink + 1e-6) + 1)
    block = max(size for size in blocks if width_px % size == 0 and height_px % size == 0)
    if shrink * block > 1.0 / 1.3:
        return width_px // block, height_px // block
    return max(1, round(width_px * shrink)), max(1, round(height_px * shrink))


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB from RGB or grey."""
    if image.ndim == 3:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def to_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) grey from RGB or grey."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def rotate_camera(
    image: NDArray[np.uint8], camera: Camera, R_cam_new: Array, border: int = cv2.BORDER_CONSTANT
) -> NDArray[np.uint8]:
    """The view of an ideal pinhole turned about its centre: an exact new view, ``x_new ~ K R_new_cam K^-1 x``.

    Args:
        image: (H, W[, 3]) uint8 of ``camera``.
        camera: ideal pinhole of both views.
        R_cam_new: (3, 3) orientation of the new camera in the old; ``T_map_new = T_map_cam @ (R_cam_new, 0)``.
        border: OpenCV border mode outside the old view.
    """
    H = camera.K @ R_cam_new.T @ np.linalg.inv(camera.K)
    size = (camera.width_px, camera.height_px)
    return np.asarray(
        cv2.warpPerspective(image, H, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
    )


class Preprocessor:
    """Frames of any camera to network input for one target camera.

    Args:
        target: the network's ideal pinhole camera.
        mean: RGB mean of the 0..1 image.
        std: RGB standard deviation of the 0..1 image.
    """

    def __init__(
        self, target: Camera, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        self.target = target
        self._scale = (1.0 / (255.0 * np.asarray(std, np.float32))).astype(np.float32)
        self._offset = (np.asarray(mean, np.float32) / np.asarray(std, np.float32)).astype(np.float32)
        self._warper: ImageWarper | None = None

    def warp(self, image: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB as the target camera would have seen it, made bright when it is underexposed."""
        if self._warper is None or not (camera is self._warper.source or camera.same_as(self._warper.source)):
            self._warper = ImageWarper(camera, self.target)
        return to_rgb(brightened(self._warper(image)))

    def normalize(
        self, image: NDArray[np.uint8], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """(h, w, 3) uint8 RGB to (1, 3, h, w) float32, mean removed and scaled.

        Args:
            image: of the target camera.
            out: where to put it; None = into a new array.
        """
        if out is None:
            out = np.empty((1, 3, *image.shape[:2]), np.float32)
        for channel, plane in enumerate(cv2.split(image)):
            np.multiply(plane, self._scale[channel], out=out[0, channel])
            out[0, channel] -= self._offset[channel]
        return out

    def __call__(self, image: NDArray[np.uint8], camera: Camera) -> NDArray[np.float32]:
        """(1, 3, h, w) float32 network input."""
        return self.normalize(self.warp(image, camera))
