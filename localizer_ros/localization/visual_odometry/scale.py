"""Metres from odometry, where no points of known depth give them: a first baseline, and lengths ever after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Float32, Frame, RelativePose
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.geometry.two_views import relative_pose
from localizer_ros.localization.visual_odometry.corners import View, follow, new_corners
from localizer_ros.localization.visual_odometry.window import Window

# Corners to begin with, the fewest that are any use, and the share below which another image is begun with.
_CORNERS, _FEWEST, _KEPT = 250, 50, 0.5
# Median angle between the rays of a corner, with which a baseline is long enough to triangulate by.
_PARALLAX_RAD = np.radians(1.0)
# A length is measured when it is so many times its sigma.
_MEASURED = 5.0


def joined(way: RelativePose | None, step: RelativePose | None) -> RelativePose | None:
    """The way and a step further; None where one of them is not known."""
    if way is None or step is None:
        return None
    covariance = compose_covariance(way.covariance, step.T_prev_cur, step.covariance)
    T_prev_cur = way.T_prev_cur @ step.T_prev_cur
    return replace(way, stamp_cur_ns=step.stamp_cur_ns, T_prev_cur=T_prev_cur, covariance=covariance)


def length(way: RelativePose | None) -> tuple[float, float] | None:
    """Length of a way and its sigma, metres; None where it is not known, or no more than its own error."""
    if way is None:
        return None
    metres = float(np.linalg.norm(way.T_prev_cur.t))
    along = way.T_prev_cur.R.T @ way.T_prev_cur.t / max(metres, 1e-12)
    sigma = float(np.sqrt(along @ way.covariance[3:, 3:] @ along))
    return (metres, sigma) if metres > _MEASURED * sigma else None


class Beginning:
    """One image and its corners, until odometry has measured a baseline to another one.

    Args:
        camera: rays of pixels.
        frame: the image.
    """

    def __init__(self, camera: RayCamera, frame: Frame) -> None:
        self._camera = camera
        self.view = View.of(frame)
        self._begin()

    def _begin(self) -> None:
        self.xy_px: Float32 = new_corners(self.view, np.zeros((0, 2), np.float32), _CORNERS)
        self._rays = self._camera.rays(self.view.camera, self.xy_px)
        self._count = len(self._rays)
        self._way: RelativePose | None = None
        self._first = True

    def go_on(
        self, frame: Frame, step: RelativePose
    ) -> tuple[Window, tuple[float, float], RelativePose] | None:
        """The window of both images, the length between them with its sigma, and the way by odometry, once that is long
        enough; points are the corners, in order.

        Args:
            frame: the next one.
            step: the motion to it by odometry.
        """
        before, self.view = self.view, View.of(frame)
        self._way = step if self._first else joined(self._way, step)
        self._first = False
        xy, good = follow(before, self.view, self.xy_px, self.xy_px)
        self.xy_px, self._rays = xy[good], self._rays[good]
        if self._way is None or len(self._rays) < max(_FEWEST, _KEPT * self._count):
            self._begin()
            return None
        rays = self._camera.rays(frame.camera, self.xy_px)
        metres = length(self._way)
        views = None if metres is None else relative_pose(self._rays, rays, self._camera.focal_px, _FEWEST, 0)
        if metres is None or views is None or views.parallax_rad < _PARALLAX_RAD:
            return None
        keep = views.inliers
        self.xy_px, self._rays = self.xy_px[keep], self._rays[keep]
        window = Window(SE3.identity(), self._camera.focal_px)
        some = window.add_points(self._rays, np.ones(keep.sum()), np.full(keep.sum(), np.inf))
        window.add_keyframe(SE3(views.T_a_b.R, metres[0] * views.T_a_b.t), some, rays[keep])
        window.fixed = 2
        window.triangulate()
        return window, metres, self._way
