"""From pixels to rays: the camera as it was given, and what bundle adjustment found out about it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from localizer_ros.core.types import Array, Camera, ConfigError


def undistorted(camera: Camera, xy_px: ArrayLike) -> Array:
    """(N, 2) coordinates on the plane z = 1 of the camera, of (N, 2) pixels."""
    xy = np.asarray(xy_px, dtype=np.float64).reshape(-1, 1, 2)
    if len(xy) == 0:
        return np.zeros((0, 2))
    if not camera.distorted:
        (fx, skew, cx), (_, fy, cy), _ = camera.K.tolist()
        rays = np.empty((len(xy), 2))
        rays[:, 1] = (xy[:, 0, 1] - cy) / fy
        rays[:, 0] = (xy[:, 0, 0] - cx - skew * rays[:, 1]) / fx
        return rays
    if camera.model == "equidistant":
        return np.asarray(cv2.fisheye.undistortPoints(xy, camera.K, camera.distortion[:4]))[:, 0]
    # The inverse has no closed form; OpenCV's default of five steps is short of strong distortion at the corners.
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-5)
    rays = cv2.undistortPointsIter(xy, camera.K, camera.distortion, np.eye(3), np.eye(3), criteria)
    return np.asarray(rays, dtype=np.float64)[:, 0]


def distorted(camera: Camera, rays: ArrayLike) -> Array:
    """(N, 2) pixels of (N, 2) coordinates on the plane z = 1; inverse of :func:`undistorted` within the camera's view.

    Far outside of it a polynomial of distortion folds back.
    """
    points = np.asarray(rays, dtype=np.float64).reshape(-1, 2)
    if len(points) == 0:
        return np.zeros((0, 2))
    if not camera.distorted:
        return points @ camera.K[:2, :2].T + camera.K[:2, 2]
    if camera.model == "equidistant":
        return np.asarray(cv2.fisheye.distortPoints(points[:, None], camera.K, camera.distortion[:4]))[:, 0]
    ahead = np.pad(points, ((0, 0), (0, 1)), constant_values=1.0)
    xy, _ = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), camera.K, camera.distortion)
    return np.asarray(xy, dtype=np.float64)[:, 0]


def half_view_of(camera: Camera) -> Array:
    """(2,) half width and height of a camera's view on the plane z = 1, distortion aside."""
    return np.array([camera.width_px / camera.K[0, 0], camera.height_px / camera.K[1, 1]]) / 2.0


class RayCamera:
    """The camera of a map, which gives the rays of keypoints.

    A map refines the camera that its images came with; the refinement is kept as a second camera that looks at the
    first one's ideal image, so that it fits any distortion model. It applies only to that same camera: a robot that
    comes with another one is taken at its word.

    Args:
        given: camera of the mapping images, as it was given.
        refinement: camera of the ideal image of ``given`` (pixels by its K), None when nothing was refined.

    Raises:
        ConfigError: the refinement has another model than ``plumb_bob``.
    """

    def __init__(self, given: Camera, refinement: Camera | None = None) -> None:
        if refinement is not None and refinement.model != "plumb_bob":
            raise ConfigError(f"camera: expected a plumb_bob refinement, got {refinement.model}")
        self.given, self.refinement = given, refinement

    @property
    def focal_px(self) -> float:
        """Pixels of an image per unit on the plane z = 1, near its centre."""
        K = (self.refinement or self.given).K
        return 0.5 * float(K[0, 0] + K[1, 1])

    def rays(self, camera: Camera, xy_px: ArrayLike) -> Array:
        """(N, 2) coordinates on the plane z = 1 of pixels (N, 2) of an image by ``camera``."""
        rays = undistorted(camera, xy_px)
        if self.refinement is None:
            return rays
        same = camera is self.given or camera.same_as(self.given, 1e-3)
        if not same:
            scaled = self.given.scaled(camera.width_px, camera.height_px)
            if not camera.same_as(scaled, 0.51):
                return rays
        return undistorted(self.refinement, rays @ self.given.K[:2, :2].T + self.given.K[:2, 2])

    def to_dict(self) -> dict[str, Any]:
        """Plain values; :meth:`from_dict` reads them back."""
        return {
            "given": self.given.to_dict(),
            "refinement": self.refinement.to_dict() if self.refinement is not None else None,
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RayCamera:
        """Inverse of :meth:`to_dict`. Raises ConfigError when a field is missing or malformed."""
        refinement = values.get("refinement")
        if "given" not in values:
            raise ConfigError("camera: given is missing")
        return RayCamera(
            Camera.from_dict(values["given"]),
            Camera.from_dict(refinement) if refinement is not None else None,
        )
