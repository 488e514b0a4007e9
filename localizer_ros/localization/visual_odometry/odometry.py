"""Visual odometry: how one camera has moved, in metres, where no map tells.

Metres come from points whose depth was known at the start, or from odometry over a first baseline; without either there
is no answer. From there on corners are followed from image to image, new ones get their depth from keyframes, and each
image is placed by the points that it shows (Klein and Murray 2007, Leutenegger et al. 2015 without the inertial part).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.types import Array, Float32, Frame, Index, RelativePose
from localizer_ros.geometry.rays import RayCamera
from localizer_ros.localization.external_odometry import ODOMETRY
from localizer_ros.localization.visual_odometry import VISUAL_ODOMETRY
from localizer_ros.localization.visual_odometry.corners import View, follow, new_corners
from localizer_ros.localization.visual_odometry.drift import Drift
from localizer_ros.localization.visual_odometry.points import SeenPose, seen_from, seen_pose
from localizer_ros.localization.visual_odometry.scale import Beginning, joined, length
from localizer_ros.localization.visual_odometry.window import KEYFRAMES, Window

# Corners that are followed at most; and at least, to say how the camera has moved.
_CORNERS, _FEWEST = 250, 15
# Largest error of a point that agrees with the motion, px, and the least share of points that must.
_MAX_ERROR_PX, _LEAST_AGREEMENT = 2.5, 0.5
# A new keyframe is due when corners have moved so far beside each other, px, or fewer than this share is left.
_PARALLAX_PX, _KEPT = 15.0, 0.8
# Fewer points of measured depth do not carry the scale on.
_FEWEST_MEASURED = 8
# Nor are so few enough to begin with: those last seen of a map lie at its edge, where it knows their depth least. 19 of
# a simulated room gave lengths that were 35 % short.
_FEWEST_SEEDS = 40
# Without them the camera may turn, but not move: by no more than looks like this much, px.
_STANDS_PX = 3.0
# Given depths are known to this share of them each (1 sigma), and all together to the second.
_DEPTH_SHARE, _SCALE_SHARE = 0.05, 0.005
_SAME_CAMERA_PX = 1e-3
_NO_CORNERS = np.zeros((0, 2), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Seed:
    """A frame and points whose depth is known.

    Attributes:
        frame: the image.
        xy_px: (N, 2) pixels of the points.
        rays: (N, 2) where they look, plane z = 1.
        depth_m: (N,) depths in this frame.
    """

    frame: Frame
    xy_px: Float32
    rays: Array
    depth_m: Array


@dataclass(slots=True, eq=False)
class _Followed:
    """What is known with the image seen last.

    Attributes:
        window: keyframes and points.
        view: that image.
        ids: (N,) points of the corners that are followed.
        xy_px: (N, 2) where they are.
        T: the camera.
        begun: how many corners there were with the last keyframe.
        T_begin: the camera where motions begin.
        drift: of those.
        velocity: the last motion and its duration, s.
        ways: odometry from each keyframe to the next; the last one to the image seen last.
        strange_px: (K, 2) corners that have contradicted the motion since the keyframe before.
        turning: no point has a measured depth: motions are turns, or unknown.
    """

    window: Window
    view: View
    ids: Index
    xy_px: Float32
    T: SE3
    begun: int
    T_begin: SE3
    drift: Drift
    velocity: tuple[SE3, float] | None
    ways: list[RelativePose | None]
    strange_px: Float32
    turning: bool = False


class VisualOdometry:
    """Motion of the camera from frame to frame; see the module.

    Args:
        camera: gives rays of pixels; motions are those of the frame in which rays are.
    """

    def __init__(self, camera: RayCamera) -> None:
        self._camera = camera
        self.reset()

    def reset(self) -> None:
        """Forget the frames observed so far."""
        self._seed: Seed | None = None
        self._beginning: Beginning | None = None
        self._followed: _Followed | None = None

    def seed(self, seed: Seed) -> None:
        """Begin anew with a frame and points of known depth. It costs nothing until the next frame is observed."""
        self.reset()
        self._seed = seed

    def observe(self, frame: Frame, odometry: RelativePose | None = None) -> RelativePose | None:
        """The motion since the frame observed or seeded before, in metres; None where it is not known.

        Its covariance is independent of that of the motions before.

        Args:
            frame: later than the one before.
            odometry: the same motion by odometry, where there is one: it gives lengths and nothing else.
        """
        if self._seed is not None:
            enough = len(self._seed.rays) >= _FEWEST_SEEDS
            self._followed = self._planted(self._seed) if enough else None
            self._seed = None
        before = self._followed
        if before is not None and frame.camera.same_as(before.view.camera, _SAME_CAMERA_PX):
            motion = self._go_on(before, frame, odometry)
            if motion is not None:
                return motion
        self._followed = None
        self._begin(frame, odometry)
        return None

    def _planted(self, seed: Seed) -> _Followed:
        window = Window(SE3.identity(), self._camera.focal_px)
        ids = window.add_points(seed.rays, 1.0 / seed.depth_m, _DEPTH_SHARE / seed.depth_m)
        view, xy_px = View.of(seed.frame), np.asarray(seed.xy_px, np.float32)
        followed = _Followed(
            window,
            view,
            ids,
            xy_px,
            SE3.identity(),
            len(ids),
            SE3.identity(),
            Drift(self._camera, _SCALE_SHARE),
            None,
            [_nowhere(view.stamp_ns)],
            _NO_CORNERS,
        )
        if len(ids):
            self._find_corners(followed)
        return followed

    def _begin(self, frame: Frame, odometry: RelativePose | None) -> None:
        """Look for a first baseline that odometry measures."""
        beginning, self._beginning = self._beginning, None
        if odometry is None:
            return
        if beginning is None or not frame.camera.same_as(beginning.view.camera, _SAME_CAMERA_PX):
            self._beginning = Beginning(self._camera, frame)
            return
        begun = beginning.go_on(frame, odometry)
        if begun is None:
            self._beginning = beginning
            return
        window, (metres, sigma_m), way = begun
        fits, _ = window.adjust()
        number = window.keep(fits)
        ids = number[np.nonzero(fits)[0]]
        followed = _Followed(
            window,
            beginning.view,
            ids,
            beginning.xy_px[fits],
            window.poses[-1],
            len(ids),
            window.poses[-1],
            Drift(self._camera, sigma_m / metres),
            None,
            [way, _nowhere(frame.stamp_ns)],
            _NO_CORNERS,
        )
        self._find_corners(followed)
        self._followed = followed

    def _go_on(self, f: _Followed, frame: Frame, odometry: RelativePose | None) -> RelativePose | None:
        view = View.of(frame)
        elapsed_s = (view.stamp_ns - f.view.stamp_ns) * 1e-9
        expected = SE3.identity()
        if f.velocity is not None:
            expected = interpolate(SE3.identity(), f.velocity[0], elapsed_s / f.velocity[1])
        points, T = f.window.points(f.ids), f.T @ expected
        shift = _plane(seen_from(T, points)) - _plane(seen_from(f.T, points))
        xy_px, found = follow(f.view, view, f.xy_px, f.xy_px + self._camera.focal_px * shift)
        xy_px, ids = xy_px[found], f.ids[found]
        rays = self._camera.rays(frame.camera, xy_px)
        seen = self._placed(T, rays, f.window, ids)
        if seen is None:
            return None
        keep = seen.inliers
        f.strange_px = np.concatenate([f.strange_px, xy_px[~keep]])
        prev_ns, T_prev, covariance = f.view.stamp_ns, f.T, seen.covariance
        f.view, f.ids, f.xy_px, f.T = view, ids[keep], xy_px[keep], seen.T
        f.ways[-1] = joined(f.ways[-1], odometry)
        if self._is_new(f, rays[keep]):
            covariance = covariance + f.drift.at_keyframe()
            self._add_keyframe(f, rays[keep])
        if f.turning and self._has_moved(f):
            return None
        T_prev_cur = T_prev.inverse() @ f.T
        f.velocity = T_prev_cur, elapsed_s
        covariance = covariance + f.drift.after(T_prev_cur, f.T_begin.inverse() @ f.T, 1.0 / self._usual(f))
        return RelativePose(prev_ns, view.stamp_ns, T_prev_cur, covariance, VISUAL_ODOMETRY, 0.0)

    def _placed(self, T: SE3, rays: Array, window: Window, ids: Index) -> SeenPose | None:
        """The camera by the corners found again; None where too few agree."""
        if len(ids) < _FEWEST:
            return None
        seen = seen_pose(T, rays, window.points(ids), self._camera.focal_px, _MAX_ERROR_PX)
        if seen is None or seen.inliers.sum() < max(_FEWEST, _LEAST_AGREEMENT * len(ids)):
            return None
        return seen

    def _is_new(self, f: _Followed, rays: Array) -> bool:
        """Whether the image is a keyframe."""
        if len(f.ids) < _KEPT * f.begun:
            return True
        before = np.pad(f.window.rays_in(-1, f.ids), ((0, 0), (0, 1)), constant_values=1.0)
        shift = _plane(before @ f.window.poses[-1].R.T @ f.T.R) - rays
        parallax = float(np.median(np.linalg.norm(shift, axis=1)))
        return parallax * self._camera.focal_px > _PARALLAX_PX

    def _add_keyframe(self, f: _Followed, rays: Array) -> None:
        window = f.window
        window.add_keyframe(f.T, f.ids, rays)
        fits, adjusted = window.adjust()
        if adjusted:
            f.T = window.poses[-1]
            if window.fixed == 1:
                f.drift.learn_scale(window.length_sigma())
        f.ways.append(_nowhere(f.view.stamp_ns))
        self._measure(f)
        if len(window.poses) > KEYFRAMES:
            fits &= window.drop_oldest()
            del f.ways[0]
        kept, number = fits[f.ids], window.keep(fits)
        f.ids, f.xy_px = number[f.ids[kept]], f.xy_px[kept]
        if np.count_nonzero(~window.points(f.ids).assumed) < _FEWEST_MEASURED:
            self._turn(f)
        self._find_corners(f)

    def _measure(self, f: _Followed) -> None:
        """Take lengths from odometry, as far as it knows them better."""
        way: RelativePose | None = _nowhere(0)
        first = len(f.ways) - 1
        while first > 0 and f.ways[first - 1] is not None:
            first -= 1
        for step in f.ways[first:-1]:
            way = joined(way, step)
        measured = length(way)
        if measured is None:
            return
        seen_m = f.window.poses[first].distance_to(f.window.poses[-1])
        sigma, told = f.drift.scale_sigma, measured[1] / measured[0]
        gain = sigma**2 / (sigma**2 + told**2)
        f.window.scale(float(np.exp(gain * np.log(measured[0] / max(seen_m, 1e-9)))))
        # A wheel of the wrong size errs alike each time: asked again it knows no better.
        f.drift.scale_sigma = max(sigma * float(np.sqrt(1.0 - gain)), min(sigma, told))
        f.T = f.window.poses[-1]

    def _turn(self, f: _Followed) -> None:
        """No depth is measured any more: from here on the camera may turn, until it moves."""
        rays = f.window.rays_in(-1, f.ids)
        usual = self._usual(f)
        f.window = Window(f.T, self._camera.focal_px)
        f.ids = f.window.add_points(rays, np.full(len(rays), usual), np.full(len(rays), np.inf))
        f.ways, f.turning = [_nowhere(f.view.stamp_ns)], True

    def _has_moved(self, f: _Followed) -> bool:
        moved_m = f.T.distance_to(f.window.poses[0])
        return moved_m * self._usual(f) * self._camera.focal_px > _STANDS_PX

    def _usual(self, f: _Followed) -> float:
        """Inverse of the usual depth of the points in sight, 1/m."""
        points = f.window.points(f.ids)
        return float(np.median(points.inverse_m / np.maximum(seen_from(f.T, points)[:, 2], 0.1)))

    def _find_corners(self, f: _Followed) -> None:
        """New corners of the newest keyframe, where it has none; of usual depth until they are measured."""
        xy_px = new_corners(f.view, f.xy_px, _CORNERS, f.strange_px)
        f.strange_px = _NO_CORNERS
        rays = self._camera.rays(f.view.camera, xy_px)
        usual = np.full(len(rays), self._usual(f))
        f.ids = np.append(f.ids, f.window.add_points(rays, usual, np.full(len(rays), np.inf)))
        f.xy_px = np.concatenate([f.xy_px, xy_px])
        f.begun = len(f.ids)


def _nowhere(stamp_ns: int) -> RelativePose:
    return RelativePose(stamp_ns, stamp_ns, SE3.identity(), np.zeros((6, 6)), ODOMETRY)


def _plane(q: Array) -> Array:
    return np.asarray(q[:, :2] / np.maximum(q[:, 2:], 0.05))
