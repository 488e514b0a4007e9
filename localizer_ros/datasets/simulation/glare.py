"""Light that depends on where the camera is: lamps in the image, their veil, their reflections in smooth surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Camera, Float32, Index, Mask, UInt8
from localizer_ros.datasets.simulation.lighting import GAMMA, LINEAR, SOURCE, Blockers, Lighting
from localizer_ros.datasets.simulation.place import Box, Quad

# Share of light that a polished surface mirrors, seen straight on (glass, lacquer, wax); more at grazing angles
# (Schlick, 1994).
_MIRRORED = 0.04
# Surfaces that are smooth but not mirrors spread a reflection by so much, sigma.
_SPREAD_RAD = np.deg2rad(3.0)
_LOBE_RAD = 3.0 * _SPREAD_RAD
# Veil by scattering in the lens: 10 / angle^2 candela per square metre for one lux at the lens, angles in degrees
# (Stiles and Holladay), not below the angle where the image of the lamp itself begins.
_VEIL = 10.0
_NEAREST_VEIL_DEG = 1.5
_COARSE_PX = 8
_WIDEST_PX = 4000.0
# Stored linear value, from which on a reflection is as dazzling as the lamp.
_DAZZLING = 10.0
_STEPS = 65535
_BRIGHTEST = SOURCE - 1.0
_CODE = np.rint(_BRIGHTEST * (np.arange(_STEPS + 1) / _STEPS) ** (1.0 / GAMMA)).astype(np.uint8)
_TO_STEPS = (_STEPS * np.minimum(LINEAR * (255.0 / _BRIGHTEST) ** GAMMA, 1.0)).astype(np.float32)


class Glare:
    """Adds what lamps and windows do to the view of one camera.

    Reflections are those of ``Quad.gloss`` > 0; one is there where nothing stands between the source and the middle of
    its reflection.

    Args:
        camera: ideal pinhole.
        lighting: scaled as the textures are.
        quads: what stands still.
        boxes: the furniture, which blocks light.
    """

    def __init__(
        self, camera: Camera, lighting: Lighting, quads: Sequence[Quad], boxes: Sequence[Box]
    ) -> None:
        self.camera, self._lighting, self._blockers = camera, lighting, Blockers(boxes)
        glossy = [quad for quad in quads if quad.gloss > 0.0]
        self._gloss = np.array([quad.gloss for quad in glossy])
        self._corners = np.stack([quad.corner for quad in glossy])
        self._normals = np.stack([quad.normal for quad in glossy])
        self._axes = np.stack([[quad.axis_u, quad.axis_v] for quad in glossy])
        self._sizes = np.array([quad.size_m for quad in glossy])
        f, c = camera.K[[0, 1], [0, 1]], camera.K[:2, 2]
        x = (np.arange(camera.width_px, dtype=np.float32) - np.float32(c[0])) / np.float32(f[0])
        y = (np.arange(camera.height_px, dtype=np.float32) - np.float32(c[1])) / np.float32(f[1])
        self._x, self._y = x[None], y[:, None]

    def __call__(self, image: UInt8, inv_z: Float32, T_map_cam: SE3) -> UInt8:
        """(H, W, 3) uint8 with the light added.

        Args:
            image: (H, W, 3) uint8 as stored, see :mod:`lighting`.
            inv_z: (H, W) inverse depth, 1/m.
            T_map_cam: camera pose.
        """
        extra = np.zeros(inv_z.shape, np.float32)
        seen = self._seen(inv_z, T_map_cam)
        self._add_reflections(extra, inv_z, T_map_cam)
        if self._lighting.bulbs:
            self._add_bulbs(extra, inv_z, T_map_cam, seen)
        extra += self._veil(T_map_cam, seen)
        linear = cv2.LUT(image, _TO_STEPS)
        linear += (_STEPS * extra)[..., None]
        np.minimum(linear, float(_STEPS), out=linear)
        stored = _CODE[linear.astype(np.uint16)]
        stored[extra > _DAZZLING] = SOURCE
        return np.asarray(stored)

    def _seen(self, inv_z: Float32, T_map_cam: SE3) -> Mask:
        """(S,) bool: sources whose middle shines into the lens."""
        to = T_map_cam.t - self._lighting.positions
        facing = self._lighting.facing
        shines = (np.sum(to * facing, axis=1) > 0.0) | ~facing.any(axis=1)
        shines &= (to @ T_map_cam.R[:, 2]) < -0.05
        hidden = self._blockers.between(self._lighting.positions, T_map_cam.t)
        in_camera = -to @ T_map_cam.R
        xy, inside = self._pixel(in_camera)
        # What moves about is in the depth image alone.
        for i in np.flatnonzero(inside & shines & ~hidden):
            hidden[i] = inv_z[xy[i, 1], xy[i, 0]] * in_camera[i, 2] > 1.05
        return np.asarray(shines & ~hidden, bool)

    def _pixel(self, in_camera: Array) -> tuple[Index, Mask]:
        """(N, 2) whole pixels of points in the camera frame, and (N,) whether they are in the image."""
        z = np.maximum(in_camera[:, 2:], 1e-3)
        xy = in_camera[:, :2] / z * self.camera.K[[0, 1], [0, 1]] + self.camera.K[:2, 2]
        whole = np.rint(np.clip(xy, -_WIDEST_PX, _WIDEST_PX)).astype(np.intp)
        size = np.array([self.camera.width_px, self.camera.height_px])
        return whole, np.all((whole >= 0) & (whole < size), axis=1) & (in_camera[:, 2] > 0.0)

    def _add_bulbs(self, extra: Float32, inv_z: Float32, T_map_cam: SE3, seen: Mask) -> None:
        """The lamps themselves, as discs that are far brighter than anything lit."""
        in_camera = (self._lighting.positions - T_map_cam.t) @ T_map_cam.R
        radius_m = np.sqrt(self._lighting.area_m2 / np.pi)
        for i in np.flatnonzero(seen):
            middle, reach = in_camera[i], float(radius_m[i] / in_camera[i, 2])
            part = self._part(middle, 1.5 * reach)
            if part is None:
                continue
            x, y = self._x[:, part[1]] - middle[0] / middle[2], self._y[part[0]] - middle[1] / middle[2]
            disc = (x**2 + y**2 < reach**2) & (inv_z[part] * middle[2] < 1.05)
            extra[part] += disc * np.float32(self._lighting.radiance[i])

    def _add_reflections(self, extra: Float32, inv_z: Float32, T_map_cam: SE3) -> None:
        """Blurred mirror images of the sources, where their middle is on a glossy surface and lit."""
        sources = self._lighting.positions
        heights = np.sum(
            (sources[None] - self._corners[:, None]) * self._normals[:, None], axis=2
        )  # (Q, S) above each plane
        above = np.sum((T_map_cam.t - self._corners) * self._normals, axis=1)
        share = above[:, None] / np.maximum(heights + above[:, None], 1e-9)
        mirrored = sources[None] - 2.0 * heights[..., None] * self._normals[:, None]
        # Where the straight line from the camera to the mirrored source meets the surface.
        meets = T_map_cam.t + share[..., None] * (mirrored - T_map_cam.t)
        on_quad = np.einsum("qsi,qai->qsa", meets - self._corners[:, None], self._axes)
        shines = np.asarray((heights > 0.0) & (above[:, None] > 0.0), bool)
        shines &= np.all((on_quad > 0.0) & (on_quad < self._sizes[:, None]), axis=2)
        shines &= (meets - T_map_cam.t) @ T_map_cam.R[:, 2] > 0.1
        leaving = np.sum((meets - sources[None]) * self._lighting.facing[None], axis=2)
        shines &= (leaving > 0.0) | ~np.any(self._lighting.facing != 0.0, axis=1, keepdims=True).T
        pairs = np.argwhere(shines)
        pairs = pairs[~self._blockers.between(meets[shines], sources[pairs[:, 1]])]
        for q, s in pairs:
            in_camera = (mirrored[q, s] - T_map_cam.t) @ T_map_cam.R
            part = self._part(in_camera, _LOBE_RAD)
            if part is None:
                continue
            extra[part] += self._lobe(int(q), int(s), part, in_camera, T_map_cam) * self._on_plane(
                int(q), part, inv_z, T_map_cam
            )

    def _lobe(self, q: int, s: int, part: tuple[slice, slice], in_camera: Array, T_map_cam: SE3) -> Float32:
        """Linear light of one reflection in a part of the image."""
        distance = float(np.linalg.norm(in_camera))
        towards = (in_camera / distance).astype(np.float32)
        x, y = self._x[:, part[1]], self._y[part[0]]
        cosine = (x * towards[0] + y * towards[1] + towards[2]) / np.sqrt(x**2 + y**2 + 1.0)
        slant = abs(float((T_map_cam.R @ towards) @ self._normals[q]))
        mirrored = _MIRRORED + (1.0 - _MIRRORED) * (1.0 - slant) ** 5
        of_source = self._lighting.area_m2[s] / distance**2
        spread = of_source / (of_source + 2.0 * np.pi * _SPREAD_RAD**2)
        peak = self._gloss[q] * mirrored * spread * self._lighting.radiance[s]
        return np.asarray(peak * np.exp((cosine - 1.0) / np.float32(_SPREAD_RAD**2)), np.float32)

    def _on_plane(self, q: int, part: tuple[slice, slice], inv_z: Float32, T_map_cam: SE3) -> Array:
        """Where a part of the image shows the plane of a surface."""
        normal = self._normals[q] @ T_map_cam.R
        offset = float((self._corners[q] - T_map_cam.t) @ self._normals[q])
        expected = (self._x[:, part[1]] * normal[0] + self._y[part[0]] * normal[1] + normal[2]) / offset
        return np.asarray(np.abs(inv_z[part] - expected) < 1e-3 * np.abs(expected))

    def _veil(self, T_map_cam: SE3, seen: Mask) -> Float32:
        """(H, W) linear light scattered in the lens."""
        step = _COARSE_PX
        x, y = self._x[:, ::step], self._y[::step]
        veil = np.zeros((y.shape[0], x.shape[1]), np.float32)
        to = (self._lighting.positions - T_map_cam.t) @ T_map_cam.R
        square = np.sum(to**2, axis=1)
        length = np.sqrt(x**2 + y**2 + 1.0)
        for i in np.flatnonzero(seen):
            towards = to[i] / np.sqrt(square[i])
            cosine = (x * towards[0] + y * towards[1] + towards[2]) / length
            angle = np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0)))
            at_lens = self._lighting.radiance[i] * self._lighting.area_m2[i] / square[i]
            veil += (_VEIL * at_lens / np.maximum(angle, _NEAREST_VEIL_DEG) ** 2).astype(np.float32)
        size = (veil.shape[1] * step, veil.shape[0] * step)
        full = cv2.resize(veil, size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[: self.camera.height_px, : self.camera.width_px], np.float32)

    def _part(self, in_camera: Array, reach: float) -> tuple[slice, slice] | None:
        """Rows and columns around a direction, ``reach`` (a tangent) to each side; None outside the image."""
        if in_camera[2] <= 0.05:
            return None
        f, c = self.camera.K[[0, 1], [0, 1]], self.camera.K[:2, 2]
        ray = in_camera[:2] / in_camera[2]
        # Off the axis an angle covers more pixels.
        wider = reach * float(1.0 + ray @ ray)
        low = np.clip(np.floor(f * (ray - wider) + c), -1, _WIDEST_PX).astype(int)
        high = np.clip(np.ceil(f * (ray + wider) + c) + 1, -1, _WIDEST_PX).astype(int)
        rows = slice(max(low[1], 0), min(high[1], self.camera.height_px))
        columns = slice(max(low[0], 0), min(high[0], self.camera.width_px))
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return None
        return rows, columns
