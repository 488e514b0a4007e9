"""How far astray visual odometry may have gone: the covariance of each motion, so that their sum is honest.

A wrong length, or a wrong calibration, makes all motions wrong in the same way. What a motion adds to the covariance is
therefore what the error of the whole way has grown by, and not what a motion by itself would err by.
"""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.geometry.rays import RayCamera

# From one keyframe to the next all lengths go astray by this share, and directions by this angle (1 sigma each): by
# simulated drives in a room and a hall, 140 keyframes in 30 s, whose normalised squared errors have a median of 2 then.
_SCALE_WALK, _TURN_WALK_RAD = 0.001, np.radians(0.01)
# A camera as it was given is not known better than to this share: the last half of KITTI 00, whose matches, taken two
# images at a time, miss the true turns and directions as much as visual odometry does. One that a map has refined is.
_GIVEN, _REFINED = 0.003, 0.001
# Of what a map had to change in the focal length so much is still wrong: the training part of Red Kitchen.
_STILL_WRONG = 0.5


class Drift:
    """Grows with the way.

    Args:
        camera: a map that had to change its focal length by some share says how well that is known. Turns, and moves of
            like effect on the image, are wrong by such a share (Red Kitchen: 5 %, and turns of 30 deg miss by 1.5
            deg), and so is where ahead is.
        scale_sigma: of the logarithm of all lengths, to begin with.
    """

    def __init__(self, camera: RayCamera, scale_sigma: float) -> None:
        self.scale_sigma = self._first_sigma = scale_sigma
        given = 0.5 * float(camera.given.K[0, 0] + camera.given.K[1, 1])
        least = _GIVEN if camera.refinement is None else _REFINED
        self._calibration = float(np.hypot(least, _STILL_WRONG * np.log(camera.focal_px / given)))
        self._path_m = self._astray_m = self._effect = 0.0

    def learn_scale(self, length_sigma: float) -> None:
        """Lengths are known no better than the way on which new points were triangulated.

        Args:
            length_sigma: relative error of that way, with lengths from the first points alone.
        """
        self.scale_sigma = float(np.hypot(self._first_sigma, length_sigma))

    def at_keyframe(self) -> Array:
        """(6, 6) by how much directions are less certain beyond a keyframe, and lengths with them."""
        self.scale_sigma = float(np.hypot(self.scale_sigma, _SCALE_WALK))
        return np.diag([_TURN_WALK_RAD**2] * 3 + [0.0] * 3)

    def after(self, T_prev_cur: SE3, T_begin_cur: SE3, usual_m: float) -> Array:
        """(6, 6) what a motion adds, in its tangent.

        Args:
            T_prev_cur: the motion.
            T_begin_cur: the whole way, it included.
            usual_m: depth of what is seen.
        """
        step_m = float(np.linalg.norm(T_prev_cur.t))
        before_m, self._path_m = self._path_m, self._path_m + step_m
        astray_m = max(self._astray_m, self.scale_sigma * self._path_m)
        along = T_prev_cur.R.T @ T_prev_cur.t / max(step_m, 1e-12)
        turn_rad = T_begin_cur.angle_to(SE3.identity())
        effect = max(self._effect, float(np.hypot(turn_rad, np.linalg.norm(T_begin_cur.t) / usual_m)))
        grown = self._calibration**2 * (effect**2 - self._effect**2)
        covariance = np.diag([grown] * 3 + [grown * usual_m**2] * 3)
        forth = np.outer(along, along)
        covariance[3:, 3:] += (astray_m**2 - self._astray_m**2) * forth
        aside_m2 = self._calibration**2 * (self._path_m**2 - before_m**2)
        covariance[3:, 3:] += aside_m2 * (np.eye(3) - forth)
        self._astray_m, self._effect = astray_m, effect
        return covariance
