"""What moves about in a place: boxes that go to and fro, and people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.types import Array
from localizer_ros.datasets.simulation import textures
from localizer_ros.datasets.simulation.place import Box, Place, Quad, box_quads, moving_box_quads

_PERSON_M = (0.35, 0.5)
_PERSON_HEIGHT_M = 1.7
_WALKING_M_S = 1.2
_TEXELS_A_METRE = 180.0
# Nearest that each comes to the middle of the robot, beside its own radius.
_CLEAR_OF_BOXES_M = 0.8
_CLEAR_OF_PEOPLE_M = 0.5
_PASSES_WITHIN_M = 2.0


@dataclass(frozen=True, eq=False)
class Mover:
    """Something that goes to and fro.

    Attributes:
        box: where it is in the middle.
        reach_m: (x, y) from the middle to the turning point.
        period_s: of one round trip.
        phase: radians.
        person: whether it looks like one.
    """

    box: Box
    reach_m: Array
    period_s: float
    phase: float
    person: bool = False

    def displacement(self, time_s: Array | float) -> Array:
        """(..., 2) from the middle, metres."""
        return np.sin(2 * np.pi / self.period_s * np.asarray(time_s) + self.phase)[..., None] * self.reach_m

    def quads(self, rng: np.random.Generator) -> list[Quad]:
        """Its surfaces where it is in the middle, unlit."""
        return _person_quads(self.box, rng) if self.person else moving_box_quads(self.box, rng)


def moving_boxes(
    rng: np.random.Generator, count: int, place: Place, robot_xy: Array, times: Array
) -> list[Mover]:
    """Up to ``count`` boxes that keep clear of furniture and never come nearer than 0.8 m to the robot."""
    movers: list[Mover] = []
    for _ in range(200 * count):
        if len(movers) == count:
            break
        size = rng.uniform(0.3, 0.6, 2)
        box = Box(
            _somewhere(rng, place),
            (float(size[0]), float(size[1])),
            float(rng.uniform(0.5, 1.8)),
            yaw_rad=float(rng.uniform(0.0, np.pi)),
        )
        heading = rng.uniform(0.0, 2 * np.pi)
        reach = rng.uniform(0.2, 1.5) * np.array([np.cos(heading), np.sin(heading)])
        mover = Mover(box, reach, float(rng.uniform(6.0, 14.0)), float(rng.uniform(0.0, 6.28)))
        if _is_free(mover, place, robot_xy, times, _CLEAR_OF_BOXES_M):
            movers.append(mover)
    return movers


def people(rng: np.random.Generator, count: int, place: Place, robot_xy: Array, times: Array) -> list[Mover]:
    """Up to ``count`` people who walk to and fro and pass within 0.5 to 2 m of the robot."""
    found: list[Mover] = []
    for _ in range(500 * count):
        if len(found) == count:
            break
        heading, length = rng.uniform(0.0, 2 * np.pi), float(rng.uniform(0.8, 3.0))
        reach = length * np.array([np.cos(heading), np.sin(heading)])
        # Shoulders across the way that they walk.
        box = Box(_somewhere(rng, place), _PERSON_M, _PERSON_HEIGHT_M, yaw_rad=float(heading))
        period_s = 2 * np.pi * length / _WALKING_M_S
        mover = Mover(box, reach, period_s, float(rng.uniform(0.0, 6.28)), person=True)
        gap = np.linalg.norm(np.asarray(box.centre_m) + mover.displacement(times) - robot_xy, axis=1).min()
        if gap < _PASSES_WITHIN_M and _is_free(mover, place, robot_xy, times, _CLEAR_OF_PEOPLE_M):
            found.append(mover)
    return found


def _somewhere(rng: np.random.Generator, place: Place) -> tuple[float, float]:
    return (
        float(rng.uniform(-0.5, 0.5) * (place.size_m[0] - 1.5)),
        float(rng.uniform(-0.5, 0.5) * (place.size_m[1] - 1.5)),
    )


def _is_free(mover: Mover, place: Place, robot_xy: Array, times: Array, clear_m: float) -> bool:
    centre, radius = np.asarray(mover.box.centre_m), 0.5 * float(np.hypot(*mover.box.footprint_m))
    track = centre + np.linspace(-1.0, 1.0, 15)[:, None] * mover.reach_m
    inside = bool(np.all(np.abs(track) < np.asarray(place.size_m[:2]) / 2 - radius))
    free = all(other.distance_m(track).min() > radius for other in place.boxes)
    gap = np.linalg.norm(centre + mover.displacement(times) - robot_xy, axis=1).min()
    return inside and free and bool(gap > radius + clear_m)


def _person_quads(box: Box, rng: np.random.Generator) -> list[Quad]:
    """Legs, a printed shirt, and a head, one above the other."""
    trousers, skin = _colour(rng, (1.0, 1.0, 1.0)), _colour(rng, (1.0, 0.8, 0.65))

    def part(low: float, high: float, footprint_m: tuple[float, float]) -> Box:
        return Box(box.centre_m, footprint_m, high - low, box.z_m + low, box.yaw_rad)

    def texels(size_m: tuple[float, float]) -> tuple[int, int]:
        return max(4, round(size_m[1] * _TEXELS_A_METRE)), max(4, round(size_m[0] * _TEXELS_A_METRE))

    legs = box_quads(part(0.0, 0.85, (0.25, 0.35)), lambda size: textures.plain(rng, *texels(size), trousers))
    torso = box_quads(part(0.85, 1.45, _PERSON_M), lambda size: textures.poster(rng, *texels(size)))
    head = box_quads(part(1.45, 1.7, (0.2, 0.18)), lambda size: textures.plain(rng, *texels(size), skin))
    return [*legs, *torso, *head]


def _colour(rng: np.random.Generator, tint: tuple[float, float, float]) -> tuple[int, int, int]:
    level = float(rng.uniform(40.0, 220.0))
    r, g, b = (int(level * share) for share in tint)
    return r, g, b
