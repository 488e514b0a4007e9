"""New views for training: a camera turned about its centre (exact), and moved a little, by the depth of a map's points.

A pose regressor interpolates between the views it has seen. Turning is free: ``x_new ~ K R_new_cam K^-1 x``. Moving
needs depth; that of a sparse map, filled in by linear interpolation between its points, is good enough for moves of a
tenth of the distance to the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from localizer_ros.core.preprocess import rotate_camera
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera
from localizer_ros.geometry.rays import undistorted
from localizer_ros.scene.map_scene import MapScene

# Flow is smooth, so it is computed on a grid this much coarser than the image.
_STEP_PX = 4
# Iterations in which a moved pixel is found: each makes the error smaller by the move as a share of the depth.
_ITERATIONS = 4
# Rays and depths nearer to the image plane than this, in units of the plane z = 1 and metres, are cut off.
_AHEAD = 0.05
# Keyframes whose points are looked for in an image, and the fewest points that make a depth.
_NEIGHBOURS = 8
_FEWEST_POINTS = 30
# Points nearer than this share of the scene's depth are left out: their projection says more of their error.
_NEAREST_OF_DEPTH = 0.1
# Cells beside the image whose points still say something of its border.
_BORDER_CELLS = 3


@dataclass(frozen=True, eq=False)
class SceneDepth:
    """What a map of points knows of the training images.

    Attributes:
        inverse_depth: (N, h / 4, w / 4) float16, 1 / metres; zero all over where an image shows too few points.
        K: (3, 3) calibration of the network's image that fits the points; bundle adjustment may have refined the
            given one.
        T_cam_refined: where the optical centre sits on the body whose poses were given.
        median_m: median depth of the scene.
    """

    inverse_depth: NDArray[np.float16]
    K: Array
    T_cam_refined: SE3
    median_m: float

    def subset(self, indices: NDArray[np.int64]) -> SceneDepth:
        """That of the images at ``indices``."""
        return replace(self, inverse_depth=self.inverse_depth[indices])


class VirtualViews:
    """Images with poses, seen from cameras near their own.

    Args:
        images: (N, h, w, 3) uint8 of ``camera``.
        poses: N ``T_map_cam``.
        camera: ideal pinhole of the images.
        depth: of the images; without it views can only be turned.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        poses: tuple[SE3, ...],
        camera: Camera,
        depth: SceneDepth | None = None,
    ) -> None:
        self._images, self._poses, self._depth = images, poses, depth
        self._camera = camera if depth is None else replace(camera, K=depth.K)
        self._K = self._camera.K
        self._T_cam_refined = SE3.identity() if depth is None else depth.T_cam_refined
        h, w = images.shape[1:3]
        ys, xs = np.mgrid[0:h:_STEP_PX, 0:w:_STEP_PX].astype(np.float32)
        self._grid = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size, np.float32)])
        self._grid_shape = xs.shape

    def can_move(self, index: int) -> bool:
        """True when there is a depth for the image."""
        return self._depth is not None and bool(self._depth.inverse_depth[index, 0, 0] > 0)

    def view(
        self, index: int, R_refined_new: Array, t_refined_new: Array
    ) -> tuple[NDArray[np.uint8], SE3, NDArray[np.float32]]:
        """The view of a camera turned and moved, and its pose.

        Args:
            index: of the image.
            R_refined_new: (3, 3) orientation of the new camera in the old.
            t_refined_new: (3,) its place there, metres; must be zero where there is no depth.

        Returns:
            (h, w, 3) uint8, black outside the old view, ``T_map_cam`` of the new camera, and (h / 8, w / 8) inverse
            depth, 1 / metres, at the centres of cells of 8 px of the new view, zero where it is not known.
        """
        image = self._images[index]
        T_cam_refined = self._T_cam_refined
        T_map_new = (
            self._poses[index] @ T_cam_refined @ SE3(R_refined_new, t_refined_new) @ T_cam_refined.inverse()
        )
        h, w = image.shape[:2]
        if not self.can_move(index):
            unknown = np.zeros((h // 8, w // 8), np.float32)
            return rotate_camera(image, self._camera, R_refined_new), T_map_new, unknown
        assert self._depth is not None
        source_xy, inverse_depth = self._source_of(
            self._depth.inverse_depth[index].astype(np.float32), R_refined_new, t_refined_new
        )
        if np.any(t_refined_new):
            # The grid holds every fourth pixel from the first; resampling it must keep their places.
            full = cv2.warpAffine(
                source_xy,
                np.diag([1.0 / _STEP_PX, 1.0 / _STEP_PX, 0.0])[:2],
                (w, h),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            image = np.asarray(cv2.remap(image, full, None, cv2.INTER_LINEAR), np.uint8)  # type: ignore[call-overload]
        else:
            image = rotate_camera(image, self._camera, R_refined_new)
        return image, T_map_new, inverse_depth[1::2, 1::2]

    def _source_of(
        self, inverse_depth: NDArray[np.float32], R_refined_new: Array, t_refined_new: Array
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(h / 4, w / 4, 2) pixel of the old view that each pixel of the new one shows, and (h / 4, w / 4) its
        inverse depth in the new view, zero where it lies outside the old one.

        A point at ray r and inverse depth q of the old view, moved by t, lies along ``r - t q``: searched for by fixed
        point iteration, which converges as the depth is smooth and the move is small against it.
        """
        K_inv = np.linalg.inv(self._K)
        # Rays of the new view's pixels in a camera at its place, turned like the old one.
        wanted = R_refined_new @ K_inv @ self._grid
        wanted = (wanted[:2] / np.maximum(wanted[2], _AHEAD)).astype(np.float32)
        t = t_refined_new.astype(np.float32)[:, None]
        f = np.array([self._K[0, 0], self._K[1, 1]], np.float32)[:, None]
        c = np.array([self._K[0, 2], self._K[1, 2]], np.float32)[:, None]
        rays = wanted.copy()
        for _ in range(_ITERATIONS):
            cells = ((f * rays + c) / _STEP_PX).reshape(2, *self._grid_shape)
            q = cv2.remap(
                inverse_depth, cells[0], cells[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            q = q.reshape(1, -1)
            # (r - t_xy q) / (1 - t_z q) = wanted
            rays = wanted * (1.0 - t[2:] * q) + t[:2] * q
        xy = f * rays + c
        # Depth along the new camera's axis: of R^T (r - t q) / q.
        along = R_refined_new.astype(np.float32)[:, 2] @ np.concatenate([rays - t[:2] * q, 1.0 - t[2:] * q])
        h, w = self._images.shape[1:3]
        seen = (xy[0] > 0) & (xy[0] < w - 1) & (xy[1] > 0) & (xy[1] < h - 1) & (along > _AHEAD)
        inverse = np.where(seen, q[0] / np.maximum(along, _AHEAD), 0.0).reshape(self._grid_shape)
        return np.ascontiguousarray(xy.reshape(2, *self._grid_shape).transpose(1, 2, 0), np.float32), inverse


def scene_depth(
    scene: MapScene, camera: Camera, poses: tuple[SE3, ...], progress: Progress = no_progress
) -> SceneDepth:
    """Depth of images from the points of a map.

    Args:
        scene: map of the same recording.
        camera: the network's ideal pinhole, made from the recording's camera.
        poses: N given poses ``T_map_cam`` of the images.
        progress: told as it goes.
    """
    K = _calibration(scene, camera)
    shape = (-(-camera.height_px // _STEP_PX), -(-camera.width_px // _STEP_PX))
    maps = np.zeros((len(poses), *shape), np.float16)
    for row, T_map_cam in enumerate(poses):
        maps[row] = _inverse_depth(scene, K, scene.refined_pose(T_map_cam), shape)
        progress("depth of images", row + 1, len(poses))
    return SceneDepth(maps, K, scene.point_map.T_cam_refined, scene.point_map.median_depth)


def _calibration(scene: MapScene, camera: Camera) -> Array:
    """The pinhole that best takes the map's rays to pixels of ``camera``."""
    mapped = scene.point_map.camera
    if mapped.refinement is None:
        return camera.K
    xs, ys = np.meshgrid(
        np.linspace(0.1, 0.9, 9) * camera.width_px, np.linspace(0.1, 0.9, 9) * camera.height_px
    )
    xy = np.stack([xs.ravel(), ys.ravel()], 1)
    given = undistorted(camera, xy)
    ideal_px = given @ mapped.given.K[:2, :2].T + mapped.given.K[:2, 2]
    rays = undistorted(mapped.refinement, ideal_px)
    K = np.eye(3)
    for axis in range(2):
        design = np.stack([rays[:, axis], np.ones(len(rays))], 1)
        K[axis, axis], K[axis, 2] = np.linalg.lstsq(design, xy[:, axis], rcond=None)[0]
    return K


def _inverse_depth(
    scene: MapScene, K: Array, T_map_refined: SE3, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """(h / 4, w / 4) inverse depth, zeros where too few points are seen."""
    point_map = scene.point_map
    images = scene.nearest_keyframes(T_map_refined, _NEIGHBOURS)
    seen = np.unique(point_map.observation_point[point_map.observations_of(images)])
    points = T_map_refined.inverse() @ point_map.points[seen].astype(np.float64)
    points = points[points[:, 2] > _NEAREST_OF_DEPTH * point_map.median_depth]
    cells = (points[:, :2] / points[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]) / _STEP_PX
    inside = np.all((cells > -_BORDER_CELLS) & (cells < np.array(shape[::-1]) + _BORDER_CELLS), axis=1)
    cells, q = cells[inside], 1.0 / points[inside, 2]
    if len(q) < _FEWEST_POINTS:
        return np.zeros(shape, np.float32)
    # Of points in one cell the median: some lie behind what hides them here.
    keys = np.round(cells / 2).astype(int)
    order = np.lexsort((q, keys[:, 1], keys[:, 0]))
    keys, cells, q = keys[order], cells[order], q[order]
    starts = np.flatnonzero(np.r_[True, np.any(np.diff(keys, axis=0) != 0, axis=1)])
    ends = np.r_[starts[1:], len(q)]
    middle = (starts + ends) // 2
    cells, q = cells[middle], q[middle]
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    where = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
    try:
        filled = LinearNDInterpolator(cells, q)(where)
    except Exception as error:  # points on one line have no triangles; scipy raises Qhull's own error type
        if "Qhull" not in type(error).__name__:
            raise
        return np.zeros(shape, np.float32)
    outside = np.isnan(filled)
    if outside.any():
        filled[outside] = NearestNDInterpolator(cells, q)(where[outside])
    smooth = cv2.medianBlur(filled.reshape(shape).astype(np.float32), 5)
    return np.asarray(cv2.GaussianBlur(smooth, (0, 0), 1.0), np.float32)
