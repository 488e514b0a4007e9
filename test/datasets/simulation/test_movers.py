"""Furniture that stands elsewhere, and people."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.simulation.place import make_place, paint, rearranged


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_moved_furniture_looks_the_same_elsewhere_and_clear_of_the_way(share: float) -> None:
    place = make_place("room", 0)
    angle = np.linspace(0.0, 2 * np.pi, 60)
    way = np.stack([3.3 * np.cos(angle), 2.4 * np.sin(angle)], axis=1)
    moved = rearranged(place, share, way, np.random.default_rng(1))
    same = [a == b for a, b in zip(place.boxes, moved.boxes, strict=True)]
    # A table that carries something and the two pillars stay, as does the thing on the table.
    assert all(same[:4])
    assert np.mean(same[4:]) == pytest.approx(1.0 - share, abs=0.06)
    for before, after in zip(place.boxes, moved.boxes, strict=True):
        assert (before.footprint_m, before.height_m) == (after.footprint_m, after.height_m)
        if before is not after:
            assert np.hypot(*np.subtract(before.centre_m, after.centre_m)) > 0.2
            assert after.distance_m(way).min() > 0.5
            corners = np.abs(after.centre_m) + 0.5 * np.hypot(*after.footprint_m)
            assert np.all(corners < np.asarray(place.size_m[:2]) / 2 + 1e-9)
    for a, b in zip(paint(place, 0, 0.2), paint(moved, 0, 0.2), strict=True):
        np.testing.assert_array_equal(a.texture, b.texture)


def test_people_walk_past_the_robot_and_are_seen() -> None:
    settings = {"width_px": 160, "height_px": 120, "fps": 2.0, "duration_s": 20.0, "moving_objects": 0}
    source = SimulatedSource(WorldConfig(**settings, people=4))
    empty = SimulatedSource(WorldConfig(**settings))
    robot = np.stack([record.T_map_cam.t[:2] for record in source.records])
    times = np.arange(len(source.records)) / 2.0
    assert len(source._movers) == 4
    for person in source._movers:
        at = np.asarray(person.box.centre_m) + person.displacement(times)
        gap = np.linalg.norm(at - robot, axis=1).min()
        assert 0.5 < gap < 2.5
        speed = np.linalg.norm(np.diff(person.displacement(np.arange(0.0, 20.0, 0.1)), axis=0), axis=1) / 0.1
        assert 1.0 < speed.max() < 1.3
    hidden = [np.mean(source.render(i)[1] > 1.001 * empty.render(i)[1]) for i in range(0, 40, 4)]
    assert max(hidden) > 0.03
