"""Optical flow: where the points of a localised frame are in the next one, and the motion in metres that follows.

A localised frame knows the depth of its matched keypoints. Following them into the next frame to a tenth of a pixel
(Lucas and Kanade 1981, in pyramids) gives a motion an order of magnitude steadier than the difference of two absolute
poses, whose errors do not cancel. Points are put exactly on the rays of the earlier frame, so that the map's own errors
drop out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32, Frame, Index, Mask, UInt8
from localizer_ros.geometry.pose_solver import SolvedPose, refine_pose
from localizer_ros.geometry.rays import RayCamera

# Side of the window that is compared, px, levels of the pyramid, and when an iteration stops: a motion of up to some
# 50 px is found, to a hundredth. Near where a point is expected, two levels are enough, in eight tenths of the time: on
# every second frame of a simulated room motions are off by 4.8 mm at most, and by 8 mm without that (medians 1.2 and
# 1.1). With one level, in six tenths, two cameras that were covered in turn had a pose 2.0 cm off, which is 1.4.
_WINDOW_PX, _LEVELS, _LEVELS_NEAR = 15, 3, 2
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
# Points that are followed where the camera is about where it is expected, and where it is not: time goes with their
# number. Those with the smallest errors keep the pose where all of them have put it, while any so many do not: with
# the best 150 median errors of Red Kitchen, TUM fr1_rpy and two drives through a simulated room are those of any 250 or
# up to 13 % smaller (TUM's positions 5 % larger), with any 150 up to 20 % larger. Far from the frame that they were
# matched in they are worse than any 250 (at 4 Hz in the room by 1.1 mm, with too small a covariance): frames that are
# further apart than this have the time for all.
_BEST_POINTS, _MAX_POINTS = 150, 250
_OFTEN_NS = 80_000_000
# With fewer points there is no motion.
_FEWEST = 15
# Largest error of a point that agrees with the motion, px.
_MAX_ERROR_PX = 2.0
# Where a smaller share of the points found again agree on a motion, it is not what the camera did.
_LEAST_AGREEMENT = 0.5
# Where a smaller share of the points is found where they are expected, more of them and other places are looked at.
_LEAST_NEAR = 0.8
# A point must lie ahead of the camera by this much to be expected anywhere, metres.
_AHEAD_M = 1e-3
# Cameras are the same when their intrinsics differ by no more, px.
_SAME_CAMERA_PX = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class FlowMotion:
    """The points of the anchored frame that were found again, and the motion that they agree on.

    Attributes:
        solved: pose of this frame's refined camera in that of the anchored frame, and what supports it.
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

    @property
    def T_prev_cur(self) -> SE3:
        """Pose of this frame's refined camera in that of the anchored frame."""
        return self.solved.T_map_refined


@dataclass(frozen=True, slots=True, eq=False)
class _Anchored:
    stamp_ns: int
    image: UInt8
    camera: Camera
    xy_px: Float32
    points: Array
    """(N, 3) in the refined camera's frame."""
    map_point: Index

    def some(self, which: Index) -> _Anchored:
        """The same with some of its points."""
        return replace(
            self, xy_px=self.xy_px[which], points=self.points[which], map_point=self.map_point[which]
        )


class OpticalFlow:
    """Follows the points of the last localised frame into the next one.

    Args:
        camera: from pixels to rays.
    """

    def __init__(self, camera: RayCamera) -> None:
        self._camera = camera
        # The last localised frame: with its best points, where it has many, and with more of them.
        self._followed: tuple[_Anchored, ...] = ()

    @property
    def stamp_ns(self) -> int | None:
        """Of the frame that motion is measured from, None when there is none."""
        return self._followed[-1].stamp_ns if self._followed else None

    def reset(self) -> None:
        """Forget the last frame."""
        self._followed = ()

    def anchor(
        self,
        frame: Frame,
        xy_px: Float32,
        rays: Array,
        depth_m: Array,
        map_point: Index,
        error_px: Array,
    ) -> None:
        """Measure from a localised frame.

        Args:
            frame: the image.
            xy_px: (N, 2) matched keypoints.
            rays: (N, 2) where they look, plane z = 1.
            depth_m: (N,) depths of their map points in this frame.
            map_point: (N,) indices of those.
            error_px: (N,) how far off the keypoints they are.
        """
        points = _points(rays, depth_m)
        anchored = _Anchored(
            frame.stamp_ns, frame.grey, frame.camera, np.asarray(xy_px, np.float32), points, map_point
        )
        self._followed = (anchored,)
        if len(xy_px) > _MAX_POINTS:
            self._followed = (anchored.some(np.linspace(0, len(xy_px) - 1, _MAX_POINTS).astype(np.intp)),)
        if len(xy_px) > _BEST_POINTS:
            best = anchored.some(np.argpartition(error_px, _BEST_POINTS)[:_BEST_POINTS])
            self._followed = (best, *self._followed)

    def follow(self, frame: Frame, T_expected: SE3 | None = None) -> FlowMotion | None:
        """The anchored points in this frame; None when too few of them agree on a motion.

        Args:
            frame: the image.
            T_expected: what ``T_prev_cur`` should be about; None = not known. It is a place to begin, and no more.
        """
        if not self._followed:
            return None
        last = self._followed[-1]
        if len(last.xy_px) < _FEWEST or not frame.camera.same_as(last.camera, _SAME_CAMERA_PX):
            return None
        motion: FlowMotion | None = None
        if T_expected is not None:
            often = frame.stamp_ns - last.stamp_ns <= _OFTEN_NS
            for some in self._followed if often else (last,):
                near = self._motion(frame, some, T_expected, self._expected_px(some, T_expected))
                if near is not None and near.share >= _LEAST_NEAR:
                    return near
                motion = _of_more_points(motion, near)
        return _of_more_points(motion, self._motion(frame, last, SE3.identity(), None))

    def _expected_px(self, last: _Anchored, T_expected: SE3) -> Float32:
        """(N, 2) where the anchored points should be, as far as the lens does not distort the way there."""
        p = (last.points - T_expected.t) @ T_expected.R
        rays = p[:, :2] / np.maximum(p[:, 2], _AHEAD_M)[:, None]
        before = last.points[:, :2] / last.points[:, 2:]
        return np.ascontiguousarray(last.xy_px + self._camera.focal_px * (rays - before), np.float32)

    def _motion(
        self, frame: Frame, last: _Anchored, T_start: SE3, expected_px: Float32 | None
    ) -> FlowMotion | None:
        """The motion that the points agree on that are found near where they are expected, or anywhere."""
        xy, good = _found_again(last, frame.grey, expected_px)
        if good.sum() < _FEWEST:
            return None
        xy, points, map_point = xy[good], last.points[good], last.map_point[good]
        rays = self._camera.rays(frame.camera, xy)
        solved = refine_pose(T_start, rays, points, self._camera.focal_px, _MAX_ERROR_PX, _FEWEST)
        if solved is None:
            return None
        keep = solved.inliers
        if solved.count < _LEAST_AGREEMENT * len(keep):
            return None
        xy, rays, map_point = xy[keep], rays[keep], map_point[keep]
        return FlowMotion(solved, len(xy) / len(last.xy_px), map_point, xy, rays)


def _of_more_points(a: FlowMotion | None, b: FlowMotion | None) -> FlowMotion | None:
    if a is None or b is None:
        return a or b
    return b if len(b.map_point) > len(a.map_point) else a


def _found_again(last: _Anchored, image: UInt8, expected_px: Float32 | None) -> tuple[Float32, Mask]:
    """(N, 2) where the anchored points are in an image, and (N,) whether they were found there.

    Args:
        last: the points.
        image: (H, W) grey.
        expected_px: (N, 2) where they should be; None = not known.
    """
    levels, flags, begin = _LEVELS, 0, None
    if expected_px is not None:
        levels, flags, begin = _LEVELS_NEAR, cv2.OPTFLOW_USE_INITIAL_FLOW, expected_px.reshape(-1, 1, 2)
    followed, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        last.image,
        image,
        last.xy_px.reshape(-1, 1, 2),
        begin,
        winSize=(_WINDOW_PX, _WINDOW_PX),
        maxLevel=levels,
        criteria=_STOP,
        flags=flags,
    )
    xy = np.asarray(followed, dtype=np.float32)[:, 0]
    size = np.array([last.camera.width_px, last.camera.height_px])
    return xy, (np.asarray(status)[:, 0] > 0) & np.all((xy >= 0.0) & (xy < size - 1.0), axis=1)


def _points(rays: Array, depth_m: Array) -> Array:
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth_m[:, None]
