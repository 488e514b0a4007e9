"""Places to drive through: textured rectangles in the map frame (x, y on the floor, z up), light, and a way
around.

Everything is a :class:`Quad` seen from one side only. A room is a box seen from inside, furniture are boxes
seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from localizer_ros.core.types import Array, UInt8
from localizer_ros.datasets.simulation import textures

_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Quad:
    """A textured rectangle ``corner + u·axis_u + v·axis_v``, visible from the side of ``normal``.

    Attributes:
        corner: (3,) map frame, metres; upper left as one sees it.
        axis_u: (3,) unit vector to the right.
        axis_v: (3,) unit vector down.
        size_m: (width, height).
        texture: (H, W, 3) uint8 RGB.
        gloss: 0 (matt) to 1 (polished): how much of a lamp is mirrored.
    """

    corner: Array
    axis_u: Array
    axis_v: Array
    size_m: tuple[float, float]
    texture: UInt8
    gloss: float = 0.0

    @property
    def normal(self) -> Array:
        """(3,) unit vector towards the viewer."""
        return -np.cross(self.axis_u, self.axis_v)


@dataclass(frozen=True, eq=False)
class Box:
    """An upright box standing on ``z_m``: centre, footprint along its own axes, height and heading.

    Attributes:
        centre_m: (x, y).
        footprint_m: (along its x, along its y).
        height_m: from ``z_m`` up.
        z_m: lower side.
        yaw_rad: heading.
    """

    centre_m: tuple[float, float]
    footprint_m: tuple[float, float]
    height_m: float
    z_m: float = 0.0
    yaw_rad: float = 0.0

    def distance_m(self, points_N2: Array) -> Array:
        """(N,) distance of floor points to the footprint, 0 inside."""
        c, s = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        local = (points_N2 - np.asarray(self.centre_m)) @ np.array([[c, -s], [s, c]])
        outside = np.maximum(np.abs(local) - 0.5 * np.asarray(self.footprint_m), 0.0)
        return np.asarray(np.linalg.norm(outside, axis=1))


@dataclass(frozen=True, eq=False)
class Place:
    """Where things are; see :func:`paint` for what they look like.

    Attributes:
        size_m: (x, y, z) of the inside; x and y are centred on the origin, the floor is z = 0.
        boxes: what stands in it.
        route_m: (half length along x, half length along y, corner radius) of the way around, a rounded
            rectangle.
        wander_m: how far drives stray from the way around.
        detail: resolution of the paint; large places are seen from further away.
    """

    size_m: tuple[float, float, float]
    boxes: tuple[Box, ...]
    route_m: tuple[float, float, float]
    wander_m: float
    detail: float = 1.0


# Waxed floors and lacquered furniture; walls are matt.
_FLOOR_GLOSS = 1.0
_BOX_GLOSS = 0.5

# Texels a metre: what a camera of about 450 px focal length shows sharply from 2 m, less where it looks at a
# slant.
_SCALE = {"wall": 160.0, "floor": 96.0, "ceiling": 72.0, "box": 180.0}


def make_place(name: str, seed: int) -> Place:
    """The place of a kind (a key of ``PLACES``) with its furniture; another seed is another place."""
    return PLACES[name](np.random.default_rng([seed, 101]))


def paint(place: Place, seed: int, repetition: float) -> tuple[Quad, ...]:
    """All surfaces of a place, unlit.

    Args:
        place: from :func:`make_place`.
        seed: of the paint.
        repetition: 0..1, share of pictures and doors that look the same everywhere.
    """
    rng = np.random.default_rng([seed, 102])
    scale = {surface: place.detail * texels for surface, texels in _SCALE.items()}
    quads = _shell(rng, place.size_m, scale, repetition)
    for box in place.boxes:
        tall = box.height_m >= place.size_m[2] - 1e-9

        def side(size: tuple[float, float], tall: bool = tall) -> UInt8:
            if tall:
                return textures.wall(rng, size, scale["wall"], repetition)
            return textures.box_side(rng, size, scale["box"])

        quads.extend(box_quads(box, side, top=not tall))
    return tuple(quads)


@lru_cache(maxsize=2)
def painted(name: str, seed: int, repetition: float) -> tuple[Quad, ...]:
    """The surfaces of a place as it is made; all its drives share them."""
    return paint(make_place(name, seed), seed, repetition)


def moving_box_quads(box: Box, rng: np.random.Generator) -> list[Quad]:
    """The surfaces of something that moves about."""
    return box_quads(box, lambda size: textures.box_side(rng, size, _SCALE["box"]))


def box_quads(box: Box, side: Callable[[tuple[float, float]], UInt8], top: bool = True) -> list[Quad]:
    """The four sides and the top of a box, each painted by ``side(size_m)``."""
    c, s = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    x, y = np.array([c, s, 0.0]), np.array([-s, c, 0.0])
    half = 0.5 * np.asarray(box.footprint_m)
    middle = np.array([*box.centre_m, box.z_m])
    high = middle + box.height_m * _UP
    quads = []
    for outward, reach, width in (
        (x, half[0], 2 * half[1]),
        (-x, half[0], 2 * half[1]),
        (y, half[1], 2 * half[0]),
        (-y, half[1], 2 * half[0]),
    ):
        right = np.cross(-outward, _UP)
        size = (float(width), box.height_m)
        corner = high + reach * outward - 0.5 * width * right
        quads.append(Quad(corner, right, -_UP, size, side(size), _BOX_GLOSS if top else 0.0))
    if top:
        size = (float(2 * half[0]), float(2 * half[1]))
        quads.append(Quad(high - half[0] * x + half[1] * y, x, -y, size, side(size), _BOX_GLOSS))
    return quads


def _shell(
    rng: np.random.Generator, size_m: tuple[float, float, float], scale: dict[str, float], repetition: float
) -> list[Quad]:
    """Walls, floor and ceiling, seen from inside."""
    x, y, z = size_m
    quads = []
    for inward, reach, width in (
        (np.array([-1.0, 0.0, 0.0]), x / 2, y),
        (np.array([1.0, 0.0, 0.0]), x / 2, y),
        (np.array([0.0, -1.0, 0.0]), y / 2, x),
        (np.array([0.0, 1.0, 0.0]), y / 2, x),
    ):
        right = np.cross(-inward, _UP)
        corner = -reach * inward - 0.5 * width * right + z * _UP
        texture = textures.wall(rng, (width, z), scale["wall"], repetition)
        quads.append(Quad(corner, right, -_UP, (width, z), texture))
    east, north = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    texture = textures.floor(rng, (x, y), scale["floor"])
    quads.append(Quad(np.array([-x / 2, y / 2, 0.0]), east, -north, (x, y), texture, _FLOOR_GLOSS))
    texture = textures.ceiling(rng, (x, y), scale["ceiling"])
    quads.append(Quad(np.array([-x / 2, -y / 2, z]), east, north, (x, y), texture))
    return quads


def rearranged(place: Place, share: float, keep_clear_N2: Array, rng: np.random.Generator) -> Place:
    """The place with a share of its furniture elsewhere: what stands on the floor, carries nothing and is no pillar.

    Args:
        place: as it was.
        share: 0 to 1.
        keep_clear_N2: (N, 2) where the robot drives; furniture stays half a metre away.
        rng: chooses what is moved, and where to. What fits nowhere in a hundred trials stays.
    """

    def carries(box: Box) -> bool:
        return any(
            other.z_m > 0.0 and box.distance_m(np.array([other.centre_m]))[0] == 0.0 for other in place.boxes
        )

    movable = [
        i
        for i, box in enumerate(place.boxes)
        if box.z_m == 0.0 and box.height_m < place.size_m[2] - 1e-9 and not carries(box)
    ]
    chosen = rng.permutation(movable)[: round(share * len(movable))].tolist()
    boxes = list(place.boxes)
    for i in chosen:
        box = boxes[i]
        radius = 0.5 * float(np.hypot(*box.footprint_m))
        for _ in range(100):
            x, y = (float(rng.uniform(-0.5, 0.5) * (extent - 2 * radius)) for extent in place.size_m[:2])
            moved = replace(box, centre_m=(x, y), yaw_rad=float(rng.uniform(0.0, np.pi)))
            at = np.array([[x, y]])
            free = all(other.distance_m(at)[0] > radius for other in boxes)
            if free and moved.distance_m(keep_clear_N2).min() > 0.5:
                boxes[i] = moved
                break
    return replace(place, boxes=tuple(boxes))


def _room(rng: np.random.Generator) -> Place:
    """A furnished room with a table and pillars in the middle."""
    size = (11.0, 9.0, 2.8)
    boxes = [Box((0.0, 0.0), (2.2, 1.0), 0.75, yaw_rad=float(rng.uniform(-0.1, 0.1)))]
    boxes += [Box((side * 1.5, float(rng.uniform(-0.3, 0.3))), (0.35, 0.35), size[2]) for side in (-1.0, 1.0)]
    boxes.append(Box((float(rng.uniform(-0.5, 0.5)), 0.0), (0.5, 0.4), 0.45, z_m=0.75))
    boxes += _along_walls(rng, size, depth_m=(0.25, 0.5), gap_m=(0.4, 2.0))
    return Place(size, tuple(boxes), (3.3, 2.4, 1.6), 0.25)


def _corridor(rng: np.random.Generator) -> Place:
    """A corridor around a block of offices."""
    size = (16.0, 11.0, 2.6)
    boxes = [Box((0.0, 0.0), (11.2, 6.2), size[2])]
    boxes += _along_walls(rng, size, depth_m=(0.15, 0.35), gap_m=(2.5, 6.0))
    return Place(size, tuple(boxes), (6.8, 4.3, 1.0), 0.15)


def _hall(rng: np.random.Generator) -> Place:
    """A large hall with pillars and stacks of crates: far and near things at once."""
    size = (24.0, 16.0, 6.0)
    boxes = [Box((x, y), (0.6, 0.6), size[2]) for x in (-4.5, 0.0, 4.5) for y in (-2.0, 2.0)]
    for _ in range(10):
        x, y = rng.uniform(-4.0, 4.0), rng.uniform(-1.2, 1.2)
        side = float(rng.uniform(0.5, 1.1))
        boxes.append(Box((float(x), float(y)), (side, side), side, yaw_rad=float(rng.uniform(0, 1.5))))
    boxes += _along_walls(rng, size, depth_m=(0.4, 1.0), gap_m=(1.0, 4.0))
    return Place(size, tuple(boxes), (8.5, 4.9, 2.5), 0.5, detail=0.6)


PLACES: dict[str, Callable[[np.random.Generator], Place]] = {
    "room": _room,
    "corridor": _corridor,
    "hall": _hall,
}


def _along_walls(
    rng: np.random.Generator,
    size_m: tuple[float, float, float],
    depth_m: tuple[float, float],
    gap_m: tuple[float, float],
) -> list[Box]:
    """Furniture along all four walls, with bare stretches between."""
    boxes = []
    for length, across, turned in ((size_m[0], size_m[1], False), (size_m[1], size_m[0], True)):
        for side in (-1.0, 1.0):
            at = -length / 2 + float(rng.uniform(*gap_m))
            while at < length / 2 - 1.4:
                width, deep = float(rng.uniform(0.5, 1.4)), float(rng.uniform(*depth_m))
                along, off = at + width / 2, side * (across / 2 - deep / 2)
                boxes.append(
                    Box(
                        (off, along) if turned else (along, off),
                        (deep, width) if turned else (width, deep),
                        float(rng.uniform(0.4, min(2.0, size_m[2] - 0.3))),
                    )
                )
                at += width + float(rng.uniform(*gap_m))
    return boxes


def lit(place: Place, quads: tuple[Quad, ...], light: float, rng: np.random.Generator) -> tuple[Quad, ...]:
    """The quads with the light of a time of day baked into their textures.

    By day (1.0) light comes from one side, as through windows; towards the night (0) from fewer and fewer
    lamps. Soft shadows lie where ``rng`` puts them, so that two drives do not see the same ones.

    Args:
        place: for its size.
        quads: surfaces to light.
        light: 0 (one lamp left) to 1 (day) and beyond.
        rng: of the drive.
    """
    x, y, z = place.size_m
    day = float(np.clip(light, 0.0, 1.0))
    grid = [(i, j) for i in (-0.33, 0.0, 0.33) for j in (-0.3, 0.3)]
    on = grid[: max(1, round(len(grid) * min(1.0, 0.3 + day)))]
    lamps = np.array([[x * i, y * j, z - 0.2] for i, j in on])
    windows = np.array([[-x / 2 - 1.0, y * j, 0.7 * z] for j in (-0.3, 0.0, 0.3)])
    shadows = np.column_stack(
        [rng.uniform(-x / 2, x / 2, 6), rng.uniform(-y / 2, y / 2, 6), rng.uniform(0, z / 2, 6)]
    )
    reach = rng.uniform(0.5, 1.2, 6)
    result = []
    for quad in quads:
        n_u, n_v = (max(2, int(extent * 6) + 1) for extent in quad.size_m)
        u, v = np.meshgrid(np.linspace(0, quad.size_m[0], n_u), np.linspace(0, quad.size_m[1], n_v))
        points = quad.corner + u[..., None] * quad.axis_u + v[..., None] * quad.axis_v
        field = np.full(u.shape, 0.25 + 0.35 * day)
        for sources, power in ((lamps, 0.9 * (1.15 - day)), (windows, 1.6 * day)):
            to = sources[:, None, None, :] - points
            square = np.sum(to**2, axis=-1)
            cosine = np.maximum(np.sum(to * quad.normal, axis=-1), 0.0) / np.sqrt(square)
            # Half of the light is taken as scattered, or surfaces turned away would be black.
            field += np.sum(power * (0.5 + 0.5 * cosine) / (1.0 + 0.5 * square), axis=0)
        away = np.sum((points[..., None, :] - shadows) ** 2, axis=-1) / reach**2
        field *= 1.0 - 0.45 * np.exp(-np.min(away, axis=-1))
        shade = cv2.resize(
            field.astype(np.float32), quad.texture.shape[1::-1], interpolation=cv2.INTER_LINEAR
        )
        shaded = np.minimum(quad.texture * shade[..., None], 255.0).astype(np.uint8)
        result.append(replace(quad, texture=shaded))
    return tuple(result)
