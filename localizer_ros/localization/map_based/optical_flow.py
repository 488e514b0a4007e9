"""Optical flow: where the points of a localised frame are in the next one, and the motion in metres that follows.

A localised frame knows the depth of its matched keypoints. Following them into the next frame to a tenth of a
pixel gives a motion an order of magnitude steadier than the difference of two absolute poses, whose errors do
not cancel. Points are put exactly on the rays of the earlier frame, so that the map's own errors drop out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32, Frame, Index
from localizer_ros.features.local_features import grey
from localizer_ros.geometry.pose_solver import SolvedPose, refine_pose
from localizer_ros.geometry.rays import RayCamera

_WINDOW_PX = 15
_LEVELS = 3
_MAX_POINTS = 250
_FEWEST = 15
_MAX_ERROR_PX = 2.0
# Where a smaller share of the points found again agree on a motion, it is not what the camera did.
_LEAST_AGREEMENT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """Points of the anchored frame that were found again and agree on the motion.

    Attributes:
        solved: pose of this frame's optical frame in that of the anchored one.
        share: how many of the anchored points these are, 0..1.
        map_point: (N,) index of each in the map.
        xy_px: (N, 2) where they are in this frame.
        rays: (N, 2) the same on the plane z = 1.
    """

    solved: SolvedPose
    share: float
    map_point: Index
    xy_px: Float32
    rays: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Anchored:
    stamp_ns: int
    image: NDArray[np.uint8]
    camera: Camera
    xy_px: Float32
    points: Array
    """(N, 3) in the optical frame of the anchored image."""
    map_point: Index


class OpticalFlow:
    """Follows the points of the last localised frame into the next one.

    Args:
        camera: pixels to rays.
    """

    def __init__(self, camera: RayCamera) -> None:
        self._camera = camera
        self._last: _Anchored | None = None
        self._followed: _Anchored | None = None

    @property
    def stamp_ns(self) -> int | None:
        """Of the frame that motion is measured from, None when there is none."""
        return None if self._last is None else self._last.stamp_ns

    def reset(self) -> None:
        """Forget the last frame."""
        self._last = self._followed = None

    def anchor(self, frame: Frame, xy_px: Float32, rays: Array, depth_m: Array, map_point: Index) -> None:
        """Remember a localised frame.

        Args:
            frame: the image.
            xy_px: (N, 2) matched keypoints.
            rays: (N, 2) where they look, plane z = 1.
            depth_m: (N,) depths of their map points in this frame.
            map_point: (N,) indices of those.
        """
        if len(xy_px) > _MAX_POINTS:
            some = np.linspace(0, len(xy_px) - 1, _MAX_POINTS).astype(np.intp)
            xy_px, rays, depth_m, map_point = xy_px[some], rays[some], depth_m[some], map_point[some]
        self._last = _Anchored(
            frame.stamp_ns,
            grey(frame.image),
            frame.camera,
            np.asarray(xy_px, np.float32),
            _points(rays, depth_m),
            map_point,
        )
        self._followed = None

    def go_on(self) -> None:
        """Measure from the frame followed last, though it was not localised: its depths are the last ones, moved."""
        self._last, self._followed = self._followed, None

    def follow(self, frame: Frame) -> Followed | None:
        """The anchored points in this frame; None when too few of them agree on a motion."""
        last, self._followed = self._last, None
        if last is None or len(last.xy_px) < _FEWEST or not frame.camera.same_as(last.camera, 1e-3):
            return None
        image = grey(frame.image)
        followed, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
            last.image,
            image,
            last.xy_px[:, None],
            None,
            winSize=(_WINDOW_PX, _WINDOW_PX),
            maxLevel=_LEVELS,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
        )
        xy = np.asarray(followed, dtype=np.float32)[:, 0]
        size = np.array([frame.camera.width_px, frame.camera.height_px])
        good = (np.asarray(status)[:, 0] > 0) & np.all((xy >= 0.0) & (xy < size - 1.0), axis=1)
        if good.sum() < _FEWEST:
            return None
        xy, points, map_point = xy[good], last.points[good], last.map_point[good]
        rays = self._camera.rays(frame.camera, xy)
        solved = refine_pose(SE3.identity(), rays, points, self._camera.focal_px, _MAX_ERROR_PX, _FEWEST)
        if solved is None:
            return None
        keep = solved.inliers
        if solved.count < _LEAST_AGREEMENT * len(keep):
            return None
        xy, rays, map_point = xy[keep], rays[keep], map_point[keep]
        depth_m = (points[keep] - solved.T_map_refined.t) @ solved.T_map_refined.R[:, 2]
        self._followed = _Anchored(frame.stamp_ns, image, frame.camera, xy, _points(rays, depth_m), map_point)
        return Followed(solved, len(xy) / len(last.xy_px), map_point, xy, rays)


def _points(rays: Array, depth_m: Array) -> Array:
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth_m[:, None]
