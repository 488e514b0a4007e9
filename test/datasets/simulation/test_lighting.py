"""Light falls off, casts shadows, and comes through windows where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.datasets.simulation.lighting import (
    LINEAR,
    SOURCE,
    WHITE,
    Blockers,
    Lighting,
    illuminated,
    lighting_of,
)
from localizer_ros.datasets.simulation.place import Box, Place, Quad, make_place, paint
from localizer_ros.datasets.simulation.render import Renderer

EAST, NORTH = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
GREY = 120


def floor_of(size_m: float) -> Quad:
    corner = np.array([-0.5 * size_m, 0.5 * size_m, 0.0])
    return Quad(corner, EAST, -NORTH, (size_m, size_m), np.full((400, 400, 3), GREY, np.uint8))


def bulb(*position: float) -> Lighting:
    return Lighting(
        np.array([position]), np.zeros((1, 3)), np.ones(1), np.full(1, np.pi * 0.1**2), bulbs=True
    )


def linear_and_xy(quad: Quad) -> tuple[np.ndarray, np.ndarray]:
    """(400, 400) irradiance by what is stored, and (400, 400, 2) where."""
    cells = (np.arange(400) + 0.5) / 400 * quad.size_m[0] - 0.5 * quad.size_m[0]
    x, y = np.meshgrid(cells, -cells)
    return LINEAR[quad.texture[..., 0]] / WHITE / LINEAR[GREY], np.stack([x, y], axis=-1)


def test_light_falls_by_the_square_of_the_distance_and_the_cosine() -> None:
    height = 2.0
    empty = Place((8.0, 8.0, 2.8), (), (2.0, 2.0, 1.0), 0.1)
    (floor,), scaled = illuminated(empty, [floor_of(6.0)], bulb(0.0, 0.0, height))
    irradiance, xy = linear_and_xy(floor)
    assert irradiance.mean() == pytest.approx(1.0, abs=0.03)
    distance = np.sqrt(np.sum(xy**2, axis=-1) + height**2)
    direct = scaled.power[0] * height / distance**3
    scattered = irradiance - direct
    # What is left is the same everywhere but for the eight bits.
    assert scattered.std() < 0.02 * np.ptp(irradiance)
    assert scattered.mean() > 0.0


def test_a_box_casts_the_shadow_that_it_must() -> None:
    box = Box((0.6, 0.0), (0.4, 0.8), 0.9)
    place = Place((8.0, 8.0, 2.8), (box,), (2.0, 2.0, 1.0), 0.1)
    (floor,), _ = illuminated(place, [floor_of(6.0)], bulb(-1.0, 0.0, 2.0))
    irradiance, xy = linear_and_xy(floor)
    # From a lamp at x = -1 the far upper edge of the box at x = 0.8 reaches to -1 + 1.8 * 2 / 1.1 = 2.27.
    middle = np.abs(xy[..., 1]) < 0.3
    shadow, beyond = (
        middle & (xy[..., 0] > low) & (xy[..., 0] < high) for low, high in ((0.9, 2.1), (2.5, 2.9))
    )
    assert irradiance[shadow].max() < 0.8 * irradiance[beyond].min()
    # Nothing but scattered light is there.
    assert irradiance[shadow].std() < 0.05 * irradiance[shadow].mean()


def test_blockers_agree_with_walking_along_the_line(rng: np.random.Generator) -> None:
    boxes = make_place("room", 3).boxes
    points = rng.uniform([-5, -4, 0], [5, 4, 2.8], (300, 3))
    source = np.array([2.5, 2.0, 0.5])
    walked = np.zeros(len(points), bool)
    for share in np.linspace(0.0, 1.0, 400):
        at = points + share * (source - points)
        for box in boxes:
            within = (
                (box.distance_m(at[:, :2]) == 0.0)
                & (at[:, 2] > box.z_m)
                & (at[:, 2] < box.z_m + box.height_m)
            )
            walked |= within
    found = Blockers(boxes).between(points, source)
    # Where the line only grazes a corner the centimetre inside and the steps of the walk differ.
    assert np.mean(found != walked) < 0.02
    assert 0.1 < walked.mean() < 0.9


def test_places_are_lit_one_on_average_and_have_shadows() -> None:
    place = make_place("room", 0)
    quads = paint(place, 0, 0.2)
    for kind, layout in (("windows", 0), ("lamps", 0), ("lamps", 2)):
        lit, _ = illuminated(place, quads, lighting_of(place, kind, layout, 0))
        floor, before = lit[4], quads[4]
        assert floor.normal[2] == 1.0
        ratio = LINEAR[floor.texture].mean(axis=(2,)) / np.maximum(LINEAR[before.texture].mean(axis=2), 1e-3)
        low, high = np.percentile(ratio, [2, 98])
        assert high > 2.0 * low, (kind, layout)
        assert 0.3 < ratio.mean() / WHITE < 2.0


def test_other_layouts_have_lamps_elsewhere_and_clear_of_furniture() -> None:
    place = make_place("hall", 0)
    layouts = [lighting_of(place, "lamps", layout, 0).positions for layout in (0, 1, 2)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        apart = np.linalg.norm(layouts[a][:, None] - layouts[b][None], axis=2)
        assert apart.min() > 0.1
    for positions in layouts:
        assert np.all(np.abs(positions[:, :2]) < np.asarray(place.size_m[:2]) / 2)
        for box in place.boxes:
            inside = (box.distance_m(positions[:, :2]) == 0.0) & (positions[:, 2] < box.z_m + box.height_m)
            assert not inside.any()


@pytest.mark.parametrize(("kind", "low", "high"), [("windows", SOURCE, SOURCE), ("lamps", 0, 30)])
def test_windows_dazzle_by_day_and_are_black_at_night(kind: str, low: int, high: int) -> None:
    place = replace(make_place("room", 0), boxes=())
    lit, sources = illuminated(place, paint(place, 0, 0.2), lighting_of(place, kind, 0, 0))
    camera = Camera.pinhole(61, 61, 60.0, 60.0, 30.0, 30.0)
    looking_back = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    day = lighting_of(place, "windows", 0, 0)
    for centre in day.positions.reshape(-1, 4, 3).mean(axis=1):
        view = SE3(looking_back, centre + np.array([1.5, 0.0, 0.0]))
        image, _ = Renderer(camera, lit).render(view)
        assert low <= image[30, 30].min() and image[30, 30].max() <= high
    assert sources.bulbs == (kind == "lamps")
