"""``map -> odom`` as a controller can bear it: small corrections in small steps, large ones at once and counted."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3, interpolate

# A larger step of the robot in the map is a jump, however often transforms go out.
LARGEST_STEP_M, LARGEST_STEP_RAD = 0.1, np.radians(5.0)
# What cannot be made good within this time is made good at once: a wrong pose is worse than a jump.
_WITHIN_S = 1.0
ANEW = "localised anew"
"""Why a pose owes nothing to the last one; the usual reason."""


class MapCorrection:
    """Bounds the rate at which the robot is moved in the map by corrections, which its own motion is no part of.

    Args:
        rate_m_s: rate of corrections of the position; that of the orientation follows.

    Attributes:
        jumps: steps that were larger than bounded ones.
        last_jump: how large the last of them was, and why, in words.
    """

    def __init__(self, rate_m_s: float) -> None:
        self.reconfigure(rate_m_s)
        self._last: tuple[int, SE3] | None = None
        self._anew = ANEW
        self.jumps = 0
        self.last_jump = ""

    def reconfigure(self, rate_m_s: float) -> None:
        """Other rates from now on."""
        self._rate_m_s, self._rate_rad_s = rate_m_s, rate_m_s * LARGEST_STEP_RAD / LARGEST_STEP_M

    def restart(self, why: str = ANEW) -> None:
        """The next pose owes nothing to the last one; ``why`` is told where that is a jump."""
        self._anew = why

    def step(self, stamp_ns: int, T_map_odom: SE3, T_odom_base: SE3) -> SE3:
        """``T_map_odom`` to publish.

        Args:
            stamp_ns: of the pose.
            T_map_odom: as the pose says.
            T_odom_base: the odometry of the same time.
        """
        last, anew = self._last, self._anew
        self._anew = ""
        if last is not None and last[0] < stamp_ns:
            T_map_odom = self._bounded(last, stamp_ns, T_map_odom, T_odom_base, anew)
        self._last = (stamp_ns, T_map_odom)
        return T_map_odom

    def _bounded(
        self, last: tuple[int, SE3], stamp_ns: int, T_map_odom: SE3, T_odom_base: SE3, anew: str
    ) -> SE3:
        T_map_base = last[1] @ T_odom_base
        T_base_new = T_map_base.inverse() @ (T_map_odom @ T_odom_base)
        distance_m, angle_rad = float(np.linalg.norm(T_base_new.t)), T_base_new.angle_to(SE3.identity())
        elapsed_s = (stamp_ns - last[0]) * 1e-9
        most_m = min(self._rate_m_s, LARGEST_STEP_M / elapsed_s) * _WITHIN_S
        most_rad = min(self._rate_rad_s, LARGEST_STEP_RAD / elapsed_s) * _WITHIN_S
        if anew or distance_m > most_m or angle_rad > most_rad:
            if distance_m > LARGEST_STEP_M or angle_rad > LARGEST_STEP_RAD:
                self.jumps += 1
                why = anew or "too large a correction for small steps"
                self.last_jump = f"{distance_m:.2f} m, {np.degrees(angle_rad):.1f} deg: {why}"
            return T_map_odom
        step_m = min(self._rate_m_s * elapsed_s, LARGEST_STEP_M)
        step_rad = min(self._rate_rad_s * elapsed_s, LARGEST_STEP_RAD)
        share = min(1.0, step_m / max(distance_m, 1e-9), step_rad / max(angle_rad, 1e-9))
        T_map_base = T_map_base @ interpolate(SE3.identity(), T_base_new, share)
        return T_map_base @ T_odom_base.inverse()
