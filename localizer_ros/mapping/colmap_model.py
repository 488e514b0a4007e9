"""The map as a COLMAP model, for the tools that read one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from localizer_ros.core.signals import take_back_sigterm
from localizer_ros.geometry.rays import undistorted
from localizer_ros.scene.point_map import PointMap

take_back_sigterm()

# COLMAP's origin is the corner of the first pixel, ours its centre.
PIXEL_CENTRE = 0.5


def write_colmap_model(point_map: PointMap, folder: Path) -> int:
    """Bytes of the model written: ``cameras.bin``, ``images.bin``, ``points3D.bin`` and what else COLMAP's version has.

    Keypoints are in the ideal image of the given camera, which the model's OPENCV camera describes after refinement;
    image poses are the refined ones.
    """
    given, refinement = point_map.camera.given, point_map.camera.refinement
    camera = refinement or given
    K = camera.K
    d = np.zeros(4)
    if refinement is not None:
        d[: min(4, camera.distortion.size)] = camera.distortion[:4]
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(
        pycolmap.Camera(
            model="OPENCV",
            width=camera.width_px,
            height=camera.height_px,
            params=[K[0, 0], K[1, 1], K[0, 2] + PIXEL_CENTRE, K[1, 2] + PIXEL_CENTRE, *d],
            camera_id=1,
        )
    )
    xy = undistorted(given, point_map.observation_xy_px) @ given.K[:2, :2].T + given.K[:2, 2] + PIXEL_CENTRE
    start = point_map.image_start
    for i, name in enumerate(point_map.names):
        T_refined_map = np.linalg.inv(point_map.T_map_refined[i])
        image = pycolmap.Image(name=name, keypoints=xy[start[i] : start[i + 1]], camera_id=1, image_id=i + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(T_refined_map[:3, :3]), T_refined_map[:3, 3])
        reconstruction.add_image_with_trivial_frame(image, pose)
    slot = np.arange(len(point_map.observation_point)) - start[point_map.observation_image]
    by_point = np.argsort(point_map.observation_point, kind="stable")
    ends = np.searchsorted(point_map.observation_point[by_point], np.arange(len(point_map.points) + 1))
    for p, position in enumerate(point_map.points.astype(np.float64)):
        track = pycolmap.Track()
        for n in by_point[ends[p] : ends[p + 1]]:
            track.add_element(int(point_map.observation_image[n]) + 1, int(slot[n]))
        reconstruction.add_point3D(position, track)
    folder.mkdir(parents=True, exist_ok=True)
    reconstruction.write(str(folder))
    return sum(file.stat().st_size for file in folder.iterdir())
