"""The floor that a robot drives on: height and tilt of its camera vary as little as they did while it was mapped.

Neither where down is nor how the camera sits on the robot has to be known: of orientations ``R_map_cam`` of a camera on
a robot that turns about the normal of its floor, one direction in the camera (``up_cam``) is the same in the map
(``up_map``) in all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.se3 import SE3, skew, symmetrized
from localizer_ros.core.statistics import chi2_quantile
from localizer_ros.core.types import Array, Frame, PoseEstimate, SceneError
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.scene.arrays import load_arrays
from localizer_ros.scene.bundle import INDEX_FOLDER, NETWORKS_FOLDER, Scene
from localizer_ros.scene.image_index import IMAGES_FILE
from localizer_ros.scene.nearest_image import DESCRIPTORS

logger = logging.getLogger(__name__)

# Without turns their axis is not known. The mean of all headings is shorter than this when they spread over a quarter
# of a circle.
_LEAST_TURNED = 0.9
_FEWEST_POSES = 10
# A pose that this floor would see once in a thousand is of another floor, a ramp, or wrong: it is left as it is.
_LIMIT = chi2_quantile(0.999, 3)
_IMPOSSIBLE_SIGMAS = 10.0
_OFF_FLOOR = "planar: no robot on the floor that was mapped stands as the answer says"
# So many times the spread while mapping: covariances of answers may be too wide (median NEES 1.2 in a simulated hall,
# where 5.3 is expected), and with the spread itself orientations on the path got worse: 0.059 degrees, not 0.047.
_WEAK = 3.0


@dataclass(frozen=True, eq=False)
class Floor:
    """Height and tilt of a camera on a robot that drives on a floor.

    Attributes:
        up_map: (3,) normal of the floor in the map (up or down).
        up_cam: (3,) the same in the camera.
        height_m: of the camera along ``up_map``.
        sigma_rad: by how much the camera tilted while it was mapped, about each axis in the floor.
        sigma_m: by how much its height varied.
    """

    up_map: Array
    up_cam: Array
    height_m: float
    sigma_rad: float
    sigma_m: float

    @staticmethod
    def of(poses: Sequence[SE3]) -> Floor | None:
        """The floor under the poses ``T_map_cam`` of one camera; None where they are few or turn too little."""
        if len(poses) < _FEWEST_POSES:
            return None
        R = np.stack([T.R for T in poses])
        t = np.stack([T.t for T in poses])
        left, shares, right = np.linalg.svd(R.mean(axis=0))
        if shares[1] > _LEAST_TURNED:
            return None
        up_map, up_cam = left[:, 0], right[0]
        off = R @ up_cam - up_map
        heights = t @ up_map
        return Floor(
            up_map,
            up_cam,
            float(heights.mean()),
            float(np.sqrt(np.mean(np.sum(off**2, axis=1)) / 2.0)),
            float(heights.std()),
        )

    def on_floor(self, pose: PoseEstimate) -> PoseEstimate:
        """The pose and its covariance with what the floor says of height and tilt; as it is where the two contradict
        each other, or it has no covariance."""
        if pose.covariance is None:
            return pose
        residual, J, S = self._compared(pose.T_map_cam, pose.covariance)
        if float(residual @ np.linalg.solve(S, residual)) > _LIMIT:
            return pose
        gain = np.linalg.solve(S, J @ pose.covariance).T
        T_map_cam = pose.T_map_cam @ SE3.exp(gain @ residual)
        covariance = symmetrized(pose.covariance - gain @ S @ gain.T)
        # Which part of it the floor took away from is not known.
        return replace(pose, T_map_cam=T_map_cam, covariance=covariance, common=None)

    def excludes(self, pose: PoseEstimate) -> bool:
        """True where a robot on this floor cannot be, by ten sigma of floor and pose together."""
        if pose.covariance is None:
            return False
        residual, _, S = self._compared(pose.T_map_cam, pose.covariance)
        return float(residual @ np.linalg.solve(S, residual)) > _IMPOSSIBLE_SIGMAS**2

    def _compared(self, T_map_cam: SE3, covariance: Array) -> tuple[Array, Array, Array]:
        """(3,) two tilts (rad) and height (m) by which the floor differs from a pose, (3, 6) how they change with the
        pose's tangent, and the (3, 3) covariance of the difference, in which the floor is weak."""
        R = T_map_cam.R
        # Two directions in the floor.
        across = np.linalg.svd(self.up_map[None])[2][1:]
        residual = np.append(-across @ (R @ self.up_cam), self.height_m - self.up_map @ T_map_cam.t)
        J = np.zeros((3, 6))
        J[:2, :3] = -across @ R @ skew(self.up_cam)
        J[2, 3:] = self.up_map @ R
        own = _WEAK**2 * np.diag([self.sigma_rad**2, self.sigma_rad**2, self.sigma_m**2])
        return residual, J, J @ covariance @ J.T + own


class FrontEndOnFloor:
    """A front end whose poses, and the poses it is told to look around, are those of a camera on a floor.

    An answer that no robot on the floor can have is none. Implements ``FrontEnd``.

    Args:
        front_end: of the camera that mapped.
        floor: in its coordinates.
    """

    def __init__(self, front_end: FrontEnd, floor: Floor) -> None:
        self._front_end, self._floor = front_end, floor

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See ``FrontEnd.observe``."""
        floor = self._floor
        seen = self._front_end.observe(frame, None if prior is None else floor.on_floor(prior))
        late = tuple(floor.on_floor(pose) for pose in seen.late if not floor.excludes(pose))
        if seen.absolute is None:
            return replace(seen, late=late)
        if floor.excludes(seen.absolute):
            return replace(seen, absolute=None, late=late, reason=_OFF_FLOOR)
        return replace(seen, absolute=floor.on_floor(seen.absolute), late=late)

    def reset(self) -> None:
        """See ``FrontEnd.reset``."""
        self._front_end.reset()

    def lost(self) -> None:
        """See ``FrontEnd.lost``."""
        self._front_end.lost()

    def close(self) -> None:
        """See ``FrontEnd.close``."""
        self._front_end.close()


def floor_of(scene: Scene) -> Floor | None:
    """The floor that a scene was mapped on, in its own coordinates; None where it cannot be told.

    Raises:
        SceneError: the file of the mapping poses is damaged.
    """
    for path, name in (
        (scene.path / INDEX_FOLDER / IMAGES_FILE, "T_map_cam"),
        (scene.path / NETWORKS_FOLDER / DESCRIPTORS, "poses"),
    ):
        if path.is_file():
            try:
                return Floor.of([SE3.from_matrix(T) for T in load_arrays(path, (name,))[name]])
            except ValueError as error:
                raise SceneError(f"{path}: {error}") from error
    return None


def on_floor(front_end: FrontEnd, scene: Scene, planar: bool) -> FrontEnd:
    """The front end of a scene, on the floor where the robot is ``planar`` and the mapping poses tell of a floor.

    Raises:
        SceneError: the file of the mapping poses is damaged.
    """
    if not planar:
        return front_end
    floor = floor_of(scene)
    if floor is None:
        logger.warning(
            "planar: %s: the mapping poses are few, or turn by too little, to tell of a floor", scene.path
        )
        return front_end
    return FrontEndOnFloor(front_end, floor)
