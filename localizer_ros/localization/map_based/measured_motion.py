"""How the camera has moved since the frame before: by points of the map while there are any, else by its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from localizer_ros.core.config.map_based import TrackingConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Array, Frame, PoseEstimate, RelativePose
from localizer_ros.localization.front_end import TRACKING
from localizer_ros.localization.map_based.motion_model import flow_covariance, timing_covariance
from localizer_ros.localization.map_based.optical_flow import FlowMotion, OpticalFlow
from localizer_ros.localization.map_based.tracking import Track
from localizer_ros.localization.visual_odometry.odometry import Seed, VisualOdometry
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.point_map import PointMap

# Motions by the map's points that are closer in time than these seconds weigh as one: a wrong calibration and a rolling
# shutter make them err alike for as long as the camera turns, four times as long as errors of poses last. With the same
# time for both, motions outweigh poses: fused poses of Red Kitchen had a median of 2.64 cm where raw ones have 2.48, on
# every second frame 2.55 for 2.45, in a simulated room 0.29 for 0.27; with this 2.57, 2.49 and 0.28. On TUM fr1_rpy
# fused poses are within 3 % of raw ones with either.
_CORRELATION_S = 0.4


class MeasuredMotion:
    """Measures the motion from frame to frame.

    A localised frame knows the depth of its map points: optical flow follows those. Where the next frame is not
    localised, visual odometry begins with the same points and goes on with its own, until the map is seen again.

    Args:
        scene: map and camera.
        config: of tracking.
    """

    def __init__(self, scene: MapScene, config: TrackingConfig) -> None:
        self._scene, self._config = scene, config
        self._flow = OpticalFlow(scene.point_map.camera)
        self._odometry = VisualOdometry(scene.point_map.camera)
        self._last_ns: int | None = None
        # Of the frame before, by the map's points, and the seconds that it took.
        self._motion: tuple[SE3, float] | None = None

    def reset(self) -> None:
        """Forget the frames observed so far."""
        self._flow.reset()
        self._odometry.reset()
        self._last_ns = self._motion = None

    def follow(self, frame: Frame, timer: StageTimer) -> FlowMotion | None:
        """The map points of the frame before, when that was localised and is not long ago."""
        before, self._motion = self._motion, None
        if not self._is_next(frame):
            self._flow.reset()
            self._odometry.reset()
        if self._last_ns is None or self._flow.stamp_ns != self._last_ns:
            return None
        elapsed_s = (frame.stamp_ns - self._last_ns) * 1e-9
        with timer.stage("track_flow"):
            motion = self._flow.follow(frame, None if before is None else _after(*before, elapsed_s))
        self._motion = None if motion is None else (motion.T_prev_cur, elapsed_s)
        return motion

    def since_last(
        self, frame: Frame, motion: FlowMotion | None, localised: bool, timer: StageTimer
    ) -> RelativePose | None:
        """The motion since the frame before, None where nothing measures it.

        Args:
            frame: the newest.
            motion: its map points, as followed.
            localised: it has a pose by the map: nothing is lost when visual odometry ends here.
            timer: of the stage visual_odometry.
        """
        if localised and self._flow.stamp_ns == self._last_ns:
            # Between two poses of the map nothing has to be carried.
            return None if motion is None else self._by_map(frame, motion)
        with timer.stage("visual_odometry"):
            measured = self._odometry.observe(frame)
        if measured is None:
            return None if motion is None else self._by_map(frame, motion)
        T_cam_refined = self._scene.point_map.T_cam_refined
        T_prev_cur = T_cam_refined @ measured.T_prev_cur @ T_cam_refined.inverse()
        covariance = compose_covariance(measured.covariance, T_cam_refined.inverse())
        return replace(measured, T_prev_cur=T_prev_cur, covariance=covariance)

    def remember(self, frame: Frame, track: Track | None) -> None:
        """Make a frame the one before; with its pose and points where it is localised."""
        self._last_ns = frame.stamp_ns
        if track is not None:
            seed = anchor(self._scene.point_map, self._flow, frame, track)
            self._odometry.seed(seed)

    def with_timing(self, answer: PoseEstimate, relative: RelativePose) -> PoseEstimate:
        """The answer, less certain by what the error of stamps does while the camera moves."""
        assert answer.covariance is not None
        timing = self._timing(relative)
        return replace(answer, covariance=answer.covariance + timing, common=timing)

    def _is_next(self, frame: Frame) -> bool:
        if self._last_ns is None:
            return False
        return 0 < frame.stamp_ns - self._last_ns <= self._config.max_gap_s * 1e9

    def _by_map(self, frame: Frame, motion: FlowMotion) -> RelativePose:
        assert self._last_ns is not None
        T_cam_refined = self._scene.point_map.T_cam_refined
        T_prev_cur = T_cam_refined @ motion.T_prev_cur @ T_cam_refined.inverse()
        covariance = flow_covariance(motion.solved, self._scene.point_map.median_depth)
        covariance = compose_covariance(covariance, T_cam_refined.inverse())
        relative = RelativePose(
            self._last_ns, frame.stamp_ns, T_prev_cur, covariance, TRACKING, _CORRELATION_S
        )
        return replace(relative, covariance=covariance + self._timing(relative))

    def _timing(self, relative: RelativePose) -> Array:
        """(6, 6) what the error of stamps adds to a pose while the camera moves like this."""
        elapsed_s = (relative.stamp_cur_ns - relative.stamp_prev_ns) * 1e-9
        return timing_covariance(relative.T_prev_cur, elapsed_s, self._config.timing_sigma_ms * 1e-3)


def _after(T_prev_cur: SE3, took_s: float, elapsed_s: float) -> SE3:
    """The motion of other seconds at the velocity of one that took so many."""
    return SE3.exp(T_prev_cur.log() * (elapsed_s / took_s))


def anchor(point_map: PointMap, flow: OpticalFlow, frame: Frame, track: Track) -> Seed:
    """Let a flow measure from a localised frame; its points, with their depths."""
    verified, T = track.verified, track.T_map_refined
    keep = verified.solved.inliers
    points = verified.points[keep]
    depth_m = np.asarray((point_map.points[points] - T.t) @ T.R[:, 2])
    xy_px, rays = verified.xy_px[keep], verified.rays[keep]
    flow.anchor(frame, xy_px, rays, depth_m, points, verified.solved.error_px[keep])
    return Seed(frame, xy_px, rays, depth_m)
