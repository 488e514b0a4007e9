"""Motion of the camera from an external odometry topic."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np

from localizer_ros.core.config.runtime import OdometryConfig
from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.types import RelativePose

# Source of its motions.
ODOMETRY = "odom"
# Samples kept: ten seconds at 200 Hz, more than any time between two frames that is bridged (smoother.max_gap_s).
KEPT_SAMPLES = 2000


class ExternalOdometry:
    """Keeps the last odometry poses and gives the camera's motion between two image stamps.

    Args:
        config: noise of the odometry, and how far it may be extrapolated.
    """

    def __init__(self, config: OdometryConfig) -> None:
        self._config = config
        self._samples: deque[tuple[int, SE3]] = deque(maxlen=KEPT_SAMPLES)

    def reconfigure(self, config: OdometryConfig) -> None:
        """Other errors from now on."""
        self._config = config

    def add(self, stamp_ns: int, T_odom_base: SE3) -> None:
        """Add a sample. One that is not newer than the last starts over: its clock or its origin has changed."""
        if self._samples and stamp_ns <= self._samples[-1][0]:
            self._samples.clear()
        self._samples.append((stamp_ns, T_odom_base))

    def reset(self) -> None:
        """Forget all samples."""
        self._samples.clear()

    def motion(self, prev_ns: int, cur_ns: int, T_base_prev: SE3, T_base_cur: SE3) -> RelativePose | None:
        """Motion of the camera between two stamps, None where the odometry does not cover both.

        Args:
            prev_ns: stamp of the earlier image.
            cur_ns: stamp of the later one.
            T_base_prev: the camera on the body of ``T_odom_base`` at the earlier one.
            T_base_cur: the same at the later one; another where the camera is turned on the body.
        """
        T_odom_prev, T_odom_cur = self._at(prev_ns), self._at(cur_ns)
        if T_odom_prev is None or T_odom_cur is None:
            return None
        T_prev_cur_base = T_odom_prev.inverse() @ T_odom_cur
        angle = T_prev_cur_base.angle_to(SE3.identity())
        distance = float(np.linalg.norm(T_prev_cur_base.t))
        c = self._config
        floor_rad, floor_m = np.radians(c.floor_deg), c.floor_m
        sigma_rad = floor_rad + c.rotation_share * angle
        sigma_m = floor_m + c.translation_share * distance
        covariance_base = np.diag(np.repeat([sigma_rad**2, sigma_m**2], 3))
        # T_prev_cur_cam = T_prev_base T_prev_cur_base T_base_cur: the right factor carries the tangent over.
        adjoint = T_base_cur.inverse().adjoint()
        return RelativePose(
            prev_ns,
            cur_ns,
            T_base_prev.inverse() @ T_prev_cur_base @ T_base_cur,
            adjoint @ covariance_base @ adjoint.T,
            ODOMETRY,
        )

    def _at(self, stamp_ns: int) -> SE3 | None:
        """``T_odom_base`` at a stamp, None where the samples do not reach it."""
        samples, max_gap_ns = self._samples, self._config.max_gap_s * 1e9
        index = bisect_right(samples, stamp_ns, key=lambda sample: sample[0]) - 1
        if index < 0:
            return None
        if samples[index][0] == stamp_ns:
            return samples[index][1]
        if index + 1 == len(samples):
            # The sample after the image has not arrived yet: go on at the last rate for a moment.
            if index == 0 or stamp_ns - samples[index][0] > max_gap_ns:
                return None
            index -= 1
        (before_ns, T_before), (after_ns, T_after) = samples[index], samples[index + 1]
        if after_ns - before_ns > max_gap_ns:
            return None
        return interpolate(T_before, T_after, (stamp_ns - before_ns) / (after_ns - before_ns))
