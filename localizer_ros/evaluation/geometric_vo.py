"""Visual odometry from geometry alone: feature tracks, rotation and direction of translation. No map, no learning.

One camera does not know the length of a translation: it is ``None`` until something else gives it. This is the
yardstick for odometry that does claim metres, such as ``localization.visual_odometry``, and does not stand in for it:
a yardstick shares no estimator with what it measures, looks at two images only, so that nothing drifts in it, and
knows turns of a camera that never moves (TUM fr1_rpy), where metres cannot begin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32, Frame
from localizer_ros.geometry.rays import undistorted

_CORNERS = 600
_SPACING_PX = 10
_WINDOW_PX = 21
_LEVELS = 4
# A track followed back must end where it began.
_BACK_PX = 0.5
_FEWEST = 20
# A new keyframe is begun when less than this share of its corners is still followed. Of 0.5, 0.7 and 0.9 the best
# rotation on training frames of tum_fr1_rpy and redkitchen.
_KEPT = 0.7
# What a rotation leaves unexplained in the median before a translation is looked for; tracks are not better than this.
_PARALLAX_PX = 0.8
_EPIPOLAR_PX = 1.0
_ITERATIONS = 10


@dataclass(frozen=True, slots=True, eq=False)
class GeometricMotion:
    """Motion of the optical frame since the last keyframe, as far as one camera can know it.

    Attributes:
        stamp_key_ns: of the keyframe.
        stamp_cur_ns: of the newest frame.
        R_key_cur: (3, 3) rotation.
        direction: (3,) unit vector from the keyframe's origin to the newest, in the keyframe; None where the tracks
            show no translation.
        tracks: number of corners that agree.
        parallax_px: median of what a rotation alone leaves unexplained.
    """

    stamp_key_ns: int
    stamp_cur_ns: int
    R_key_cur: Array
    direction: Array | None
    tracks: int
    parallax_px: float

    def scaled(self, length_m: float) -> SE3:
        """``T_key_cur`` for a translation of known length; without a direction it is too small to be seen, and 0."""
        t = np.zeros(3) if self.direction is None else length_m * self.direction
        return SE3(self.R_key_cur, t)


@dataclass(slots=True, eq=False)
class _Tracks:
    """Corners of the keyframe that are still followed.

    Attributes:
        stamp_ns: of the keyframe.
        begun: how many there were.
        rays: (N, 3) of the corners in the keyframe, z = 1.
        xy_px: (N, 2) where they are in the frame followed last.
        image: that frame, grey.
        camera: that took it.
        R_key_prev: rotation of that frame.
    """

    stamp_ns: int
    begun: int
    rays: Array
    xy_px: Float32
    image: NDArray[np.uint8]
    camera: Camera
    R_key_prev: Array


class GeometricVo:
    """Follows corners from keyframe to keyframe (pyramidal Lucas-Kanade), and solves for the motion.

    Rotation alone by robust least squares; where that leaves parallax, an essential matrix by LO-RANSAC with refinement
    (poselib).
    """

    def __init__(self) -> None:
        self._tracks: _Tracks | None = None
        # Of the last pair of frames: corners are looked for where it goes on.
        self._R_prev_cur: Array = np.eye(3)

    def reset(self) -> None:
        """Forget the frames observed so far."""
        self._tracks, self._R_prev_cur = None, np.eye(3)

    def observe(self, frame: Frame) -> GeometricMotion | None:
        """The motion up to the next frame; None for the first frame, and where too few corners could be followed.

        Args:
            frame: later than every frame observed since the last reset, by the same camera.
        """
        image = frame.grey
        tracks = self._tracks
        motion = None
        if tracks is not None and frame.camera.same_as(tracks.camera, 1e-3):
            self._follow(tracks, image, frame.camera)
            motion = self._solve(tracks, frame.stamp_ns)
        if motion is None or tracks is None:
            self._R_prev_cur = np.eye(3)
        else:
            self._R_prev_cur = tracks.R_key_prev.T @ motion.R_key_cur
            tracks.R_key_prev = motion.R_key_cur
        if motion is None or tracks is None or len(tracks.xy_px) < _KEPT * tracks.begun:
            self._tracks = _begun(frame, image)
        return motion

    def _follow(self, tracks: _Tracks, image: NDArray[np.uint8], camera: Camera) -> None:
        """Corners to where they are in ``image``; those that are lost are dropped."""
        before = tracks.xy_px.reshape(-1, 1, 2)
        # Distortion hardly matters for where to begin to look.
        homogeneous = np.pad(tracks.xy_px, ((0, 0), (0, 1)), constant_values=1.0) @ np.linalg.inv(camera.K).T
        turned = homogeneous @ self._R_prev_cur @ camera.K.T
        guess = np.ascontiguousarray(turned[:, :2] / turned[:, 2:], np.float32).reshape(-1, 1, 2)
        options = {
            "winSize": (_WINDOW_PX, _WINDOW_PX),
            "maxLevel": _LEVELS,
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        if len(before):
            after, found, _ = cv2.calcOpticalFlowPyrLK(tracks.image, image, before, guess, **options)  # type: ignore[call-overload]
            back, found_back, _ = cv2.calcOpticalFlowPyrLK(
                image, tracks.image, after, before.copy(), **options
            )  # type: ignore[call-overload]
            size = np.array([camera.width_px, camera.height_px])
            good = (found[:, 0] > 0) & (found_back[:, 0] > 0)
            good &= np.linalg.norm((back - before)[:, 0], axis=1) < _BACK_PX
            good &= np.all((after[:, 0] >= 0.0) & (after[:, 0] < size - 1.0), axis=1)
            tracks.rays, tracks.xy_px = tracks.rays[good], np.ascontiguousarray(after[good, 0], np.float32)
        tracks.image, tracks.camera = image, camera

    def _solve(self, tracks: _Tracks, stamp_ns: int) -> GeometricMotion | None:
        """The motion since the keyframe; corners that contradict it are dropped."""
        if len(tracks.xy_px) < _FEWEST:
            return None
        camera = tracks.camera
        focal_px = 0.5 * float(camera.K[0, 0] + camera.K[1, 1])
        rays = np.pad(undistorted(camera, tracks.xy_px), ((0, 0), (0, 1)), constant_values=1.0)
        start = tracks.R_key_prev @ self._R_prev_cur
        R_key_cur, error_px = fit_rotation(tracks.rays, rays, focal_px, start)
        parallax_px = float(np.median(error_px))
        if parallax_px < _PARALLAX_PX:
            return GeometricMotion(tracks.stamp_ns, stamp_ns, R_key_cur, None, len(rays), parallax_px)
        refined_camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal_px, 0.0, 0.0]}
        pose, report = poselib.estimate_relative_pose(
            tracks.rays[:, :2] * focal_px,
            rays[:, :2] * focal_px,
            refined_camera,
            refined_camera,
            {"max_epipolar_error": _EPIPOLAR_PX, "min_iterations": 50, "max_iterations": 500, "seed": 0},
            {"loss_type": "CAUCHY", "loss_scale": 0.5},
        )
        agree = np.asarray(report["inliers"], dtype=bool)
        length = float(np.linalg.norm(pose.t))
        if agree.sum() < _FEWEST or not length > 0.0:
            return None
        tracks.rays, tracks.xy_px = tracks.rays[agree], tracks.xy_px[agree]
        T_key_cur = SE3(np.asarray(pose.R), np.asarray(pose.t) / length).inverse()
        return GeometricMotion(
            tracks.stamp_ns, stamp_ns, T_key_cur.R, T_key_cur.t, int(agree.sum()), parallax_px
        )


def fit_rotation(rays_key: Array, rays_cur: Array, focal_px: float, R_key_cur: Array) -> tuple[Array, Array]:
    """The rotation that carries one set of rays into another, by robust least squares (Cauchy, 1 px).

    Args:
        rays_key: (N, 3), z = 1.
        rays_cur: (N, 3), z = 1, of the same things.
        focal_px: pixels per unit on the plane z = 1.
        R_key_cur: where to begin.

    Returns:
        ``R_key_cur`` and the (N,) errors in pixels.
    """
    for _ in range(_ITERATIONS):
        error, seen = _turned(rays_key, rays_cur, focal_px, R_key_cur)
        # R exp(d) turns what is seen by -d: d seen = seen x d, and the projection drops what is along z.
        x, y = seen[:, 0], seen[:, 1]
        along_u, along_v = (x * y, -1.0 - x * x, y), (1.0 + y * y, -x * y, -x)
        jacobian = focal_px * np.stack([np.stack(along_u, 1), np.stack(along_v, 1)], 1)
        weight = 1.0 / (1.0 + (error**2).sum(1))
        normal = np.einsum("nki,n,nkj->ij", jacobian, weight, jacobian)
        gradient = np.einsum("nki,n,nk->i", jacobian, weight, error)
        step = -np.linalg.solve(normal + 1e-9 * np.eye(3), gradient)
        R_key_cur = R_key_cur @ SE3.exp(np.concatenate([step, np.zeros(3)])).R
        if np.linalg.norm(step) < 1e-6:
            break
    return R_key_cur, np.linalg.norm(_turned(rays_key, rays_cur, focal_px, R_key_cur)[0], axis=1)


def _turned(rays_key: Array, rays_cur: Array, focal_px: float, R_key_cur: Array) -> tuple[Array, Array]:
    """(N, 2) pixels between the rays, and the keyframe's rays as the newest frame sees them, z = 1."""
    turned = rays_key @ R_key_cur
    seen = turned / np.where(np.abs(turned[:, 2:]) > 1e-6, turned[:, 2:], 1e-6)
    return (seen[:, :2] - rays_cur[:, :2]) * focal_px, seen


def _begun(frame: Frame, image: NDArray[np.uint8]) -> _Tracks:
    """A new keyframe."""
    corners = cv2.goodFeaturesToTrack(image, _CORNERS, 0.005, _SPACING_PX)
    xy_px = np.zeros((0, 2), np.float32) if corners is None else np.asarray(corners, np.float32)[:, 0]
    rays = np.pad(undistorted(frame.camera, xy_px), ((0, 0), (0, 1)), constant_values=1.0)
    return _Tracks(frame.stamp_ns, len(xy_px), rays, xy_px, image, frame.camera, np.eye(3))
