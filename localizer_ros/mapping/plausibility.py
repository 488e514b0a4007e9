"""Whether a camera as bundle adjustment has refined it can be the one that was given."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera

# Nothing that was calibrated at all is this far off: shares of the focal length, and how far poses of a body that the
# camera is fixed to may be from the camera's, deg and a share of the depth of the scene.
_FOCAL_SHARE, _CENTRE_SHARE = 0.04, 0.03
_EXTRINSICS_DEG, _EXTRINSICS_OF_DEPTH = 1.5, 0.03


def implausible_refinement(given: Camera, intrinsics: Array, T_cam_refined: SE3, depth_m: float) -> list[str]:
    """What was found that no calibration is so wrong about, one line each, with what may be the reason.

    Args:
        given: camera of the recording.
        intrinsics: (8,) refined fx fy cx cy, and a distortion beyond the given one.
        T_cam_refined: refined camera in the frame of the given poses.
        depth_m: median depth of the scene.
    """
    K = given.K
    focal = np.array([K[0, 0], K[1, 1]])
    focal_off = float(np.max(np.abs(intrinsics[:2] / focal - 1.0)))
    centre_off_px = float(np.max(np.abs(intrinsics[2:4] - K[:2, 2])))
    turned_deg = float(np.degrees(T_cam_refined.angle_to(SE3.identity())))
    moved_m = float(np.linalg.norm(T_cam_refined.t))
    found = []
    if focal_off > _FOCAL_SHARE:
        found.append(
            f"the focal length fits the images {100 * focal_off:.0f} % off the given one: calibrate the camera"
        )
    if centre_off_px > _CENTRE_SHARE * float(focal.mean()):
        found.append(
            f"the principal point fits the images {centre_off_px:.0f} px off the given one: calibrate the camera"
        )
    if turned_deg > _EXTRINSICS_DEG or moved_m > _EXTRINSICS_OF_DEPTH * depth_m:
        found.append(
            f"images fit best {100 * moved_m:.0f} cm and {turned_deg:.1f} deg beside the given poses: are these the "
            "camera's, at the times of the images?"
        )
    return found
