"""A pinhole camera looking at quads: exact visibility and depth, textures without aliasing, vectorised on
the CPU.

For a plane, ``1/z``, ``u/z`` and ``v/z`` are linear in the pixel. So each rectangle covers one span a row
(found for all rectangles at once), hidden parts lose a comparison of ``1/z``, and one ``cv2.remap`` paints
the whole image from an atlas that holds every texture at all sizes in steps of the square root of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32, UInt8
from localizer_ros.datasets.simulation.place import Quad

_LEVELS = 16
_BORDER = 2


class Atlas:
    """All textures at ``_LEVELS`` sizes, each smaller by the square root of two, in one image.

    Attributes:
        image: (H, W, 3) uint8.
        scale: (N,) texels a metre of the largest size.
        levels: (N,) number of sizes kept of each texture.
        origin_x, origin_y: (N, _LEVELS) float32 position of the texture's corner in the image.
    """

    def __init__(self, quads: Sequence[Quad]) -> None:
        tiles: list[tuple[int, int, UInt8]] = []
        for number, quad in enumerate(quads):
            tiles.extend((number, level, tile) for level, tile in enumerate(_sizes(quad.texture)))
        self.scale = np.array([quad.texture.shape[1] / quad.size_m[0] for quad in quads])
        self.scale_v = np.array([quad.texture.shape[0] / quad.size_m[1] for quad in quads])
        self.levels = np.zeros(len(quads), np.float32)
        self.origin_x = np.zeros((len(quads), _LEVELS), np.float32)
        self.origin_y = np.zeros((len(quads), _LEVELS), np.float32)
        # Shelves, tallest first, about as wide as high.
        tiles.sort(key=lambda tile: -tile[2].shape[0])
        area = sum(tile.shape[0] * tile.shape[1] for _, _, tile in tiles)
        width = max(int(1.1 * area**0.5), max(tile.shape[1] for _, _, tile in tiles))
        x = y = shelf = 0
        places = []
        for number, level, tile in tiles:
            height, length = tile.shape[:2]
            if x + length > width:
                x, y, shelf = 0, y + shelf, 0
            places.append((x, y, tile))
            # Texel centres are integers, the texture begins half a texel before the first.
            self.origin_x[number, level] = x + _BORDER - 0.5
            self.origin_y[number, level] = y + _BORDER - 0.5
            self.levels[number] = max(self.levels[number], level)
            x, shelf = x + length, max(shelf, height)
        self.image: UInt8 = np.zeros((y + shelf, width, 3), np.uint8)
        for x, y, tile in places:
            self.image[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


def _sizes(texture: UInt8) -> list[UInt8]:
    """The texture and its smaller copies, each with a border of repeated texels for the interpolation."""
    tiles = [texture]
    for level in range(1, _LEVELS):
        factor = 2.0 ** (-level / 2)
        width, height = (int(np.ceil(extent * factor)) for extent in texture.shape[1::-1])
        if min(width, height) < 4:
            break
        # Two steps are one exact halving; the step between is resampled so that its scale is exact, too.
        if level % 2 == 0:
            source, step = tiles[level - 2], 2.0
        else:
            source, step = tiles[level - 1], 2.0**0.5
        blurred = cv2.GaussianBlur(source, (0, 0), 0.5 * step * 0.8, borderType=cv2.BORDER_REPLICATE)
        to_source = np.array([[step, 0.0, 0.5 * step - 0.5], [0.0, step, 0.5 * step - 0.5]])
        smaller = cv2.warpAffine(
            blurred,
            to_source,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        tiles.append(np.asarray(smaller, np.uint8))
    return [
        np.asarray(cv2.copyMakeBorder(t, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REPLICATE), np.uint8)
        for t in tiles
    ]


class Renderer:
    """Draws quads for one camera; keeps its buffers.

    Args:
        camera: ideal pinhole.
        quads: textures come from these; positions may be replaced in :meth:`render`.
        atlas: of these quads, where another renderer has made it already.
    """

    def __init__(self, camera: Camera, quads: Sequence[Quad], atlas: Atlas | None = None) -> None:
        self.camera = camera
        self._quads, self._atlas = quads, Atlas(quads) if atlas is None else atlas
        self._K_inv = np.linalg.inv(camera.K)
        self._corners = np.stack([quad.corner for quad in quads])
        self._axes_u = np.stack([quad.axis_u for quad in quads])
        self._axes_v = np.stack([quad.axis_v for quad in quads])
        self._normals = np.stack([quad.normal for quad in quads])
        self._sizes = np.array([quad.size_m for quad in quads])
        size = (camera.height_px, camera.width_px)
        self._inv_z, self._U, self._V = (np.zeros(size, np.float32) for _ in range(3))
        self._number = np.zeros(size, np.intp)
        self._columns = np.arange(camera.width_px, dtype=np.int32)
        self._factors = (2.0 ** (-np.arange(_LEVELS) / 2)).astype(np.float32)

    def of_camera(self, camera: Camera) -> Renderer:
        """One that shows the same to another camera."""
        return Renderer(camera, self._quads, self._atlas)

    def render(self, T_map_cam: SE3, moved: dict[int, Array] | None = None) -> tuple[UInt8, Float32]:
        """Draw.

        Args:
            T_map_cam: camera pose.
            moved: number of a quad -> (3,) displacement in the map, for things that move.

        Returns:
            (H, W, 3) uint8 RGB, and (H, W) float32 inverse depth 1/z in 1/m (0 where nothing is seen).
        """
        inv_z, U, V, number = self._inv_z, self._U, self._V, self._number
        inv_z.fill(0.0)
        number.fill(0)
        corners = self._corners
        if moved:
            corners = corners.copy()
            for quad, displacement in moved.items():
                corners[quad] += displacement
        planes, distance = self._planes(T_map_cam, corners)
        first, last = self._spans(planes)
        rows_y = np.arange(self.camera.height_px)
        facing = distance > 1e-6
        seen = (first <= last) & facing[:, None]
        for index in np.flatnonzero(seen.any(axis=1)):
            rows = np.flatnonzero(seen[index])
            top, bottom = int(rows[0]), int(rows[-1]) + 1
            left, right = int(first[index][rows].min()), int(last[index][rows].max()) + 1
            box = (slice(top, bottom), slice(left, right))
            xs, ys = self._columns[left:right], rows_y[top:bottom, None]
            # A gradient along x added to one along y: one pass over the box.
            iz, u, v = (
                (g[0] * xs).astype(np.float32) + (g[1] * ys + g[2]).astype(np.float32) for g in planes[index]
            )
            mask = iz > inv_z[box]
            mask &= xs >= first[index, top:bottom, None]
            mask &= xs <= last[index, top:bottom, None]
            np.copyto(inv_z[box], iz, where=mask)
            np.copyto(U[box], u, where=mask)
            np.copyto(V[box], v, where=mask)
            np.copyto(number[box], index, where=mask)
        return self._paint(distance), inv_z

    def _planes(self, T_map_cam: SE3, corners: Array) -> tuple[Array, Array]:
        """(N, 3, 3) gradients of 1/z, u/z and v/z over the pixel (x, y, 1), and (N,) distance to each
        plane.
        """
        R = T_map_cam.R
        o, a, b, n = ((corners - T_map_cam.t) @ R, self._axes_u @ R, self._axes_v @ R, self._normals @ R)
        n_o = np.sum(n * o, axis=1)
        safe = np.where(np.abs(n_o) < 1e-9, 1e-9, n_o)
        inv_z = (n @ self._K_inv) / safe[:, None]
        u = a @ self._K_inv - np.sum(a * o, axis=1)[:, None] * inv_z
        v = b @ self._K_inv - np.sum(b * o, axis=1)[:, None] * inv_z
        return np.stack([inv_z, u, v], axis=1), -n_o

    def _spans(self, planes: Array) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(N, H) first and last column of each quad in each row; first > last where it is not in the row."""
        inv_z, u, v = planes[:, 0], planes[:, 1], planes[:, 2]
        # Inside is where all of these are positive: in front of the camera (nearer than 10 km) and within
        # the edges.
        front = inv_z - np.array([0.0, 0.0, 1e-4])
        inside = np.stack(
            [front, u, self._sizes[:, :1] * inv_z - u, v, self._sizes[:, 1:] * inv_z - v], axis=1
        )
        # Neighbouring surfaces share an edge; rounding must not leave a pixel on it to neither.
        inside[..., 2] += 1e-7
        slope = inside[..., 0]
        slope = np.where(np.abs(slope) < 1e-12, 1e-12, slope)[..., None]
        y = np.arange(self.camera.height_px)
        bound = -(inside[..., 1:2] * y + inside[..., 2:3]) / slope
        first = np.ceil(np.where(slope > 0, bound, -np.inf).max(axis=1))
        last = np.floor(np.where(slope < 0, bound, np.inf).min(axis=1))
        width = self.camera.width_px
        return (
            np.clip(first, 0, width).astype(np.int32),
            np.clip(last, -1, width - 1).astype(np.int32),
        )

    def _paint(self, distance: Array) -> UInt8:
        """Look the pixels up in the atlas, at the size that matches theirs."""
        atlas, inv_z, number = self._atlas, self._inv_z, self._number
        # A pixel covers z^3 / (f^2 distance) square metres of the plane. Its square root would alias along
        # the slant of grazing views and the longer side would blur across it: the exponents are between the
        # two.
        offset = np.log2(atlas.scale / self.camera.K[0, 0]) - 0.75 * np.log2(np.maximum(distance, 1e-6))
        level = np.log2(np.maximum(inv_z, 1e-4))
        level *= np.float32(-3.5)
        level += np.take((2.0 * offset + 0.25).astype(np.float32), number)
        np.clip(level, 0.0, np.take(atlas.levels, number), out=level)
        step = level.astype(np.intp)
        factor = np.take(self._factors, step)
        factor /= np.maximum(inv_z, 1e-9)
        step += number * _LEVELS
        map_x = self._U * np.take(atlas.scale.astype(np.float32), number)
        map_x *= factor
        map_x += np.take(atlas.origin_x, step)
        map_y = self._V * np.take(atlas.scale_v.astype(np.float32), number)
        map_y *= factor
        map_y += np.take(atlas.origin_y, step)
        return np.asarray(cv2.remap(atlas.image, map_x, map_y, cv2.INTER_LINEAR), np.uint8)
