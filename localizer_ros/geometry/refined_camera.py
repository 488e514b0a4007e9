"""The camera of a network's images as bundle adjustment found it: its calibration, and where it is on the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class RefinedCamera:
    """How the images of a network were really taken.

    Attributes:
        K: (3, 3) calibration that fits the map, pixels of the network's image.
        T_cam_refined: the optical centre on the body whose poses were given.
    """

    K: Array
    T_cam_refined: SE3

    def to_dict(self) -> dict[str, list[float]]:
        """Plain numbers for a model card; :meth:`from_dict` reads them back."""
        return {
            "K": self.K.ravel().tolist(),
            "t_cam_refined": self.T_cam_refined.t.tolist(),
            "q_cam_refined": self.T_cam_refined.quaternion_xyzw().tolist(),
        }

    @staticmethod
    def from_dict(values: dict[str, list[float]]) -> RefinedCamera:
        """Inverse of :meth:`to_dict`. Raises KeyError where a value is missing, ValueError where one is malformed."""
        return RefinedCamera(
            np.array(values["K"], dtype=np.float64).reshape(3, 3),
            SE3.from_quaternion(np.array(values["t_cam_refined"]), np.array(values["q_cam_refined"])),
        )
