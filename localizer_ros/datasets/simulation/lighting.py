"""Light as it falls: lamps and windows, what of it reaches each surface, and the shadows that furniture casts.

Textures are reflectances; what is stored of a lit surface is ``reflectance x irradiance x WHITE`` to the power of
``1 / GAMMA``, so that eight bits hold shadows as well as what stands beside a lamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from localizer_ros.core.types import Array, Float32, Mask, UInt8
from localizer_ros.datasets.simulation.place import Box, Place, Quad

GAMMA = 2.2
WHITE = 0.2
"""Stored linear value of white in the mean light: surfaces up to five times as bright are not clipped."""
SOURCE = 255
"""Stored value of a source of light itself, which no surface has: it dazzles whatever the exposure."""
LINEAR: Float32 = ((np.arange(256) / 255.0) ** GAMMA).astype(np.float32)
"""(256,) linear value of what is stored."""

_POINTS_A_METRE = 10.0
# Pairs of points and boxes that are tried at once: they stay in the cache of a processor.
_TOGETHER = 20_000
_CEILING_LAMP_M = 0.35
_BULB_M = 0.1
_PANE_M = (1.2, 1.2)
_NIGHT_PANE = 12


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light sources of a place; irradiances are relative to the mean over all surfaces.

    Attributes:
        positions: (S, 3) in the map, metres.
        facing: (S, 3) unit vectors, zero where it shines in all directions alike.
        power: (S,) irradiance at one metre straight in front of it.
        area_m2: (S,) as it is seen from its front.
        bulbs: whether these are bulbs that stand in the room, else panes of windows.
    """

    positions: Array
    facing: Array
    power: Array
    area_m2: Array
    bulbs: bool

    @property
    def radiance(self) -> Array:
        """(S,) stored linear value of the source itself, seen from its front."""
        return np.asarray(np.pi * WHITE * self.power / self.area_m2)


def lighting_of(place: Place, kind: Literal["windows", "lamps"], layout: int, seed: int) -> Lighting:
    """The sources of light of a place, not yet scaled; see :func:`illuminated`.

    Args:
        place: for its size and furniture.
        kind: daylight through the windows of one wall, or lamps.
        layout: of lamps: 0 hang from the ceiling in a grid; others are on the walls, elsewhere for each number.
        seed: of the place.
    """
    x, y, z = place.size_m
    if kind == "windows":
        # Four points for each pane: soft shadows.
        offsets = [(0.25 * a * _PANE_M[0], 0.25 * b * _PANE_M[1]) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
        at = [[-0.5 * x, centre[0] + u, centre[1] + v] for centre in _panes(place) for u, v in offsets]
        count = len(at)
        facing = np.tile([1.0, 0.0, 0.0], (count, 1))
        area = np.full(count, _PANE_M[0] * _PANE_M[1] / 4.0)
        return Lighting(np.array(at), facing, np.ones(count), area, bulbs=False)
    if layout == 0:
        grid = [(i, j) for i in (-0.33, 0.0, 0.33) for j in (-0.3, 0.3)]
        at = [[x * i, y * j, z - _CEILING_LAMP_M] for i, j in grid]
    else:
        at = _on_walls(place, np.random.default_rng([seed, 110, layout]))
    count = len(at)
    area = np.full(count, np.pi * _BULB_M**2)
    return Lighting(np.array(at), np.zeros((count, 3)), np.ones(count), area, bulbs=True)


def illuminated(place: Place, quads: Sequence[Quad], lighting: Lighting) -> tuple[list[Quad], Lighting]:
    """The quads as they look in this light, and the light scaled so that surfaces get 1 on average.

    Light falls off with the square of the distance and the cosine, and furniture casts shadows; things that move
    are lit where they stand on average and cast none.

    Args:
        place: for furniture and windows.
        quads: unlit surfaces.
        lighting: of any scale.
    """
    grids = [_grid(quad, _POINTS_A_METRE * place.detail) for quad in quads]
    points = np.concatenate([grid.reshape(-1, 3) for grid in grids])
    sizes = [grid.shape[0] * grid.shape[1] for grid in grids]
    normals = np.repeat(np.stack([quad.normal for quad in quads]), sizes, axis=0)
    direct = _direct(lighting, points, normals, place.boxes)
    mean = float(direct.mean())
    # What all surfaces scatter lights each of them alike, as in an integrating sphere.
    reflected = float(np.average([LINEAR[quad.texture].mean() for quad in quads], weights=sizes))
    scattered = reflected / (1.0 - reflected)
    scale = 1.0 / (mean * (1.0 + scattered))
    irradiance = scale * (direct + scattered * mean)
    lit = []
    ends = np.cumsum(sizes)
    for quad, grid, end, size in zip(quads, grids, ends, sizes, strict=True):
        field = (WHITE * irradiance[end - size : end]) ** (1.0 / GAMMA)
        shade = cv2.resize(
            field.reshape(grid.shape[:2]).astype(np.float32),
            quad.texture.shape[1::-1],
            interpolation=cv2.INTER_LINEAR,
        )
        texture = np.minimum(quad.texture * shade[..., None], SOURCE - 1.0).astype(np.uint8)
        if _has_windows(place, quad):
            _paint_panes(place, texture, bright=not lighting.bulbs)
        lit.append(replace(quad, texture=texture))
    return lit, replace(lighting, power=scale * lighting.power)


class Blockers:
    """Furniture that stands in the way of light.

    Args:
        boxes: the furniture.
    """

    def __init__(self, boxes: Sequence[Box]) -> None:
        yaw = np.array([box.yaw_rad for box in boxes])
        c, s, zero, one = np.cos(yaw), np.sin(yaw), np.zeros(len(boxes)), np.ones(len(boxes))
        self._to_box = np.array([[c, -s, zero], [s, c, zero], [zero, zero, one]]).transpose(2, 0, 1)
        centres = [[*box.centre_m, box.z_m + 0.5 * box.height_m] for box in boxes]
        self._centres = np.array(centres).reshape(-1, 3)
        # A centimetre inside, so that a box does not hide its own surface.
        sizes = np.array([[*box.footprint_m, box.height_m] for box in boxes]).reshape(-1, 3)
        self._half = 0.5 * sizes - 0.01

    def between(self, points: Array, sources: Array) -> Mask:
        """(N,) bool: whether something stands between points and sources of light.

        Args:
            points: (N, 3) in the map; they may lie on the surface of a box.
            sources: (N, 3), or (3,) for all of them, in the map.
        """
        hidden = np.zeros(len(points), bool)
        sources = np.broadcast_to(sources, points.shape)
        chunk = _TOGETHER // max(1, len(self._half))
        for first in range(0, len(points), chunk):
            some = slice(first, first + chunk)
            start = (points[some] - self._centres[:, None]) @ self._to_box
            step = (sources[some] - self._centres[:, None]) @ self._to_box - start
            step = np.where(np.abs(step) < 1e-9, 1e-9, step)
            half = self._half[:, None]
            to_low, to_high = (-half - start) / step, (half - start) / step
            enters = np.minimum(to_low, to_high).max(axis=2)
            leaves = np.maximum(to_low, to_high).min(axis=2)
            hidden[some] = np.any((enters < leaves) & (leaves > 0.0) & (enters < 1.0), axis=0)
        return hidden


def _direct(lighting: Lighting, points: Array, normals: Array, boxes: Sequence[Box]) -> Array:
    """(N,) irradiance that comes straight from the sources."""
    total = np.zeros(len(points))
    blockers = Blockers(boxes)
    for position, facing, power in zip(lighting.positions, lighting.facing, lighting.power, strict=True):
        to = position - points
        square = np.maximum(np.sum(to**2, axis=1), _BULB_M**2)
        falling = np.sum(to * normals, axis=1) / np.sqrt(square)
        leaving = -to @ facing / np.sqrt(square) if facing.any() else np.ones(len(points))
        some = np.flatnonzero((falling > 0.0) & (leaving > 0.0))
        some = some[~blockers.between(points[some], position)]
        total[some] += power * falling[some] * leaving[some] / square[some]
    return total


def _grid(quad: Quad, density: float) -> Array:
    """(rows, columns, 3) points spread over a quad, so many a metre, for which light is worked out."""
    n_u, n_v = (max(2, int(extent * density) + 1) for extent in quad.size_m)
    # Middles of cells, as texels are: the edge itself may lie in a neighbour.
    u, v = np.meshgrid(
        (np.arange(n_u) + 0.5) * quad.size_m[0] / n_u, (np.arange(n_v) + 0.5) * quad.size_m[1] / n_v
    )
    return np.asarray(quad.corner + u[..., None] * quad.axis_u + v[..., None] * quad.axis_v)


def _panes(place: Place) -> list[tuple[float, float]]:
    """(y, z) of the middles of the windows in the wall at the lower end of x."""
    _, y, z = place.size_m
    return [(y * j, 0.62 * z) for j in (-0.3, 0.0, 0.3)]


def _has_windows(place: Place, quad: Quad) -> bool:
    x, y, z = place.size_m
    at_end = abs(quad.corner[0] + 0.5 * x) < 1e-6
    return bool(at_end and quad.normal[0] > 0.99 and quad.size_m == (y, z))


def _paint_panes(place: Place, texture: UInt8, bright: bool) -> None:
    """Windows into a wall that is seen from inside: the sky by day, black at night."""
    height, width = texture.shape[:2]
    _, y, z = place.size_m
    for centre_y, centre_z in _panes(place):
        # Seen from inside, looking along -x, +y is to the right.
        left = (centre_y + 0.5 * y - 0.5 * _PANE_M[0]) / y
        top = (z - centre_z - 0.5 * _PANE_M[1]) / z
        columns = slice(round(left * width), round((left + _PANE_M[0] / y) * width))
        rows = slice(round(top * height), round((top + _PANE_M[1] / z) * height))
        texture[rows, columns] = SOURCE if bright else _NIGHT_PANE


def _on_walls(place: Place, rng: np.random.Generator) -> list[list[float]]:
    """Lamps at the height of a head, a hand's breadth off the walls, one for ten metres of them."""
    x, y, _ = place.size_m
    around, off = 2.0 * (x + y), 0.25
    found: list[list[float]] = []
    wanted = max(3, round(around / 10.0))
    while len(found) < wanted:
        along, height = rng.uniform(0.0, around), rng.uniform(1.5, 2.1)
        side, rest = (0, along) if along < 2 * x else (1, along - 2 * x)
        length, across = (x, y) if side == 0 else (y, x)
        sign, at = (-1.0, rest) if rest < length else (1.0, rest - length)
        position = [at - 0.5 * length, sign * (0.5 * across - off)]
        if side == 1:
            position.reverse()
        free = all(
            box.distance_m(np.array([position]))[0] > _BULB_M or box.z_m + box.height_m < height - _BULB_M
            for box in place.boxes
        )
        if free:
            found.append([*position, float(height)])
    return found
