"""The picture of the README puts map points where the map's own camera model looks."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from overlay_picture import projected

from localizer_ros.core.types import Camera
from localizer_ros.geometry.rays import RayCamera

GIVEN = Camera(
    640, 480, np.array([[520.0, 0, 320.0], [0, 521.0, 240.0], [0, 0, 1.0]]), np.array([0.1, -0.2, 0, 0, 0.0])
)
FISHEYE = Camera(640, 480, GIVEN.K, np.array([0.02, -0.01, 0.0, 0.0]), "equidistant")
REFINED = Camera(
    640, 480, np.array([[515.0, 0, 322.0], [0, 514.0, 238.0], [0, 0, 1.0]]), np.array([0.01, 0.02, 0, 0, 0.0])
)


@pytest.mark.parametrize("given", [GIVEN, FISHEYE], ids=["plumb_bob", "equidistant"])
@pytest.mark.parametrize("refinement", [None, REFINED], ids=["as given", "refined"])
def test_a_projected_point_is_seen_along_its_own_ray(
    given: Camera, refinement: Camera | None, rng: np.random.Generator
) -> None:
    camera = RayCamera(given, refinement)
    rays = rng.uniform(-0.4, 0.4, (50, 2))
    depth = rng.uniform(0.5, 20.0, (50, 1))
    points = np.column_stack([rays, np.ones(50)]) * depth
    scene: Any = SimpleNamespace(point_map=SimpleNamespace(camera=camera))
    xy = projected(scene, given, points)
    # The inverse of a lens model is found by iteration.
    assert np.allclose(camera.rays(given, xy), rays, atol=1e-5)
