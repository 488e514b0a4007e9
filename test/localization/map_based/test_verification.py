"""How far a pose in a map is believed."""

from dataclasses import replace

import numpy as np
import pytest
from kitchen import Kitchen

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.types import Camera
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.verification import PoseVerifier
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


def test_inliers_that_fit_worse_than_the_map_are_doubted(kitchen: Kitchen) -> None:
    scene, config = MapScene.open(kitchen.scene), SearchConfig()
    verifier = PoseVerifier(scene, config.min_inliers)
    found = HierarchicalLocalizer(scene, config).localize(kitchen.queries.read(0), None).verified
    assert found is not None
    map_error_px = scene.point_map.statistics["reprojection_error_px"]

    def confidence(error: float, camera: Camera = kitchen.source.camera) -> float:
        solved = replace(found.solved, error_px=np.full(len(found.solved.error_px), error * map_error_px))
        return verifier.confidence(camera, solved, found.visible, found.coverage, None)

    # As well as the map's own observations, and as well as right poses do, is all the same.
    assert confidence(1.0) == confidence(2.5) > 0.9
    assert confidence(2.5) > confidence(4.0) > confidence(6.0)
    odds = [value / (1.0 - value) for value in (confidence(2.5), confidence(6.0))]
    assert odds[1] < 0.01 * odds[0]
    # A camera of half the resolution cannot do better.
    camera = kitchen.source.camera
    assert confidence(5.0, camera.scaled(camera.width_px // 2, camera.height_px // 2)) == confidence(2.5)
