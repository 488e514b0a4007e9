"""Motion of the camera from an external odometry topic."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np

from localizer_ros.core.config.runtime import OdometryConfig
from localizer_ros.core.continuity import OVER_SAMPLES, jump
from localizer_ros.core.se3 import SE3, compose_covariance, interpolate
from localizer_ros.core.types import Array, RelativePose

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
        self._covariances: deque[Array | None] = deque(maxlen=KEPT_SAMPLES)
        self._problem = ""

    def reconfigure(self, config: OdometryConfig) -> None:
        """Other errors from now on."""
        self._config = config

    def add(self, stamp_ns: int, T_odom_base: SE3, covariance: Array | None = None) -> None:
        """Add a sample. One that is not newer than the last, or has jumped, starts over: its clock or its origin has
        changed, and no motion leads there. One that is not finite is left out.

        Args:
            stamp_ns: of the sample.
            T_odom_base: the pose.
            covariance: (6, 6) in its tangent, of the whole way to it as odometry gives it; None when unknown.
        """
        if not np.all(np.isfinite(T_odom_base.matrix())):
            self._problem = "odometry is not finite"
            return
        if self._samples:
            self._check(stamp_ns, T_odom_base)
        self._samples.append((stamp_ns, T_odom_base))
        self._covariances.append(covariance)

    def take_problem(self) -> str:
        """What was wrong with the samples since this was asked last; empty when nothing was."""
        problem, self._problem = self._problem, ""
        return problem

    def reset(self) -> None:
        """Forget all samples."""
        self._samples.clear()
        self._covariances.clear()

    def _check(self, stamp_ns: int, T_odom_base: SE3) -> None:
        """Start over where a new sample does not go on from those before."""
        back_s = (self._samples[-1][0] - stamp_ns) * 1e-9
        problem = f"odometry goes back in time by {back_s:.2f} s" if back_s > 0.0 else ""
        if back_s < 0.0:
            recent = list(self._samples)[-OVER_SAMPLES:]
            if (found := jump(recent, stamp_ns, T_odom_base)) is not None:
                problem = f"odometry jumps by {found[0]:.2f} m and {np.degrees(found[1]):.0f} deg"
        if back_s >= 0.0 or problem:
            self.reset()
        if problem:
            self._problem = problem

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
        told = self._told(prev_ns, cur_ns, T_prev_cur_base)
        if told is not None:
            covariance_base = covariance_base + _positive_part(told - covariance_base)
        # T_prev_cur_cam = T_prev_base T_prev_cur_base T_base_cur: the right factor carries the tangent over.
        adjoint = T_base_cur.inverse().adjoint()
        return RelativePose(
            prev_ns,
            cur_ns,
            T_base_prev.inverse() @ T_prev_cur_base @ T_base_cur,
            adjoint @ covariance_base @ adjoint.T,
            ODOMETRY,
        )

    def _told(self, prev_ns: int, cur_ns: int, T_prev_cur: SE3) -> Array | None:
        """(6, 6) by how much the odometry's own covariance grew on the way, in the tangent of the motion.

        One that never changes says nothing of a motion: many drivers publish constants.
        """
        last = len(self._samples) - 1
        prev, cur = (
            min(max(bisect_right(self._samples, ns, key=lambda sample: sample[0]) - 1, 0), last)
            for ns in (prev_ns, cur_ns)
        )
        S_prev, S_cur = self._covariances[prev], self._covariances[cur]
        if S_prev is None or S_cur is None or np.allclose(np.diag(S_prev), np.diag(S_cur), rtol=1e-3):
            return None
        return S_cur - compose_covariance(S_prev, T_prev_cur)

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


def _positive_part(S: Array) -> Array:
    """The nearest covariance to a symmetric matrix."""
    values, vectors = np.linalg.eigh(0.5 * (S + S.T))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
