"""Lamps are seen where they hang, and mirrored where geometry says."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.datasets.simulation.glare import Glare
from localizer_ros.datasets.simulation.lighting import SOURCE, Lighting
from localizer_ros.datasets.simulation.place import Box, Quad
from localizer_ros.datasets.simulation.render import Renderer

CAMERA = Camera.pinhole(320, 240, 200.0, 200.0, 159.5, 119.5)
FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
LAMP = np.array([5.0, 0.3, 1.2])


def floor() -> Quad:
    texture = np.full((64, 64, 3), 60, np.uint8)
    east, north = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    return Quad(np.array([-10.0, 10.0, 0.0]), east, -north, (20.0, 20.0), texture, gloss=1.0)


def lighting(power: float = 3.0) -> Lighting:
    return Lighting(LAMP[None], np.zeros((1, 3)), np.full(1, power), np.full(1, np.pi * 0.1**2), bulbs=True)


def seen(camera_y: float, boxes: tuple[Box, ...] = (), power: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """An image without and with glare, from a height of a metre."""
    T_map_cam = SE3(FORWARD, np.array([0.0, camera_y, 1.0]))
    image, inv_z = Renderer(CAMERA, [floor()]).render(T_map_cam)
    glare = Glare(CAMERA, lighting(power), [floor()], boxes)
    return image, glare(image, inv_z, T_map_cam)


def projected(point: np.ndarray, camera_y: float) -> np.ndarray:
    ray = FORWARD.T @ (point - np.array([0.0, camera_y, 1.0]))
    return CAMERA.K[:2, :2] @ (ray[:2] / ray[2]) + CAMERA.K[:2, 2]


@pytest.mark.parametrize("camera_y", [-0.6, 0.2, 0.9])
def test_a_lamp_and_its_reflection_are_where_geometry_says(camera_y: float) -> None:
    before, after = seen(camera_y)
    y, x = np.nonzero(np.all(after == SOURCE, axis=2))
    np.testing.assert_allclose([x.mean(), y.mean()], projected(LAMP, camera_y), atol=0.7)
    below = np.arange(240)[:, None] > 130
    added = (after[..., 0].astype(float) - before[..., 0]) * below
    row, column = np.unravel_index(np.argmax(added), added.shape)
    mirrored = projected(LAMP * [1.0, 1.0, -1.0], camera_y)
    assert added.max() > 20.0
    assert np.hypot(column - mirrored[0], row - mirrored[1]) < 3.0


def test_furniture_hides_a_lamp_and_its_reflection() -> None:
    before, after = seen(0.2, (Box((2.5, 0.3), (0.2, 2.0), 2.5),))
    assert not np.any(after == SOURCE)
    assert np.array_equal(after, before)


def test_the_veil_is_widest_around_the_lamp_and_grows_with_its_power() -> None:
    """Above the horizon there is nothing but the lamp and its veil."""
    weak, strong = (seen(0.3, power=power)[1][..., 0].astype(float) for power in (0.5, 5.0))
    x, y = np.rint(projected(LAMP, 0.3)).astype(int)
    across = strong[y, x + 12 : x + 120 : 12]
    assert np.all(np.diff(across) <= 0.0) and across[0] > across[-1] + 20.0
    assert np.all(strong[y, x + 12 : x + 80] > weak[y, x + 12 : x + 80])


def test_without_sources_in_view_nothing_changes() -> None:
    T_map_cam = SE3(FORWARD, np.array([6.0, 0.0, 1.0]))
    image, inv_z = Renderer(CAMERA, [floor()]).render(T_map_cam)
    np.testing.assert_array_equal(Glare(CAMERA, lighting(), [floor()], ())(image, inv_z, T_map_cam), image)
