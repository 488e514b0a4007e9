"""What speaks for a pose in a map."""

from dataclasses import replace

import numpy as np
import pytest
from kitchen import Kitchen

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, PoseEstimate
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.verification import PoseVerifier, Surroundings, VerifiedPose
from localizer_ros.scene.map_scene import MapScene

pytestmark = pytest.mark.slow


def test_evidence_and_what_is_made_of_it(kitchen: Kitchen) -> None:
    scene, config = MapScene.open(kitchen.scene), SearchConfig()
    verifier = PoseVerifier(scene, config.min_inliers)
    found = HierarchicalLocalizer(scene, config).localize(kitchen.queries.read(0), None).verified
    assert found is not None
    map_error_px = scene.point_map.statistics["reprojection_error_px"]

    def rated(
        error: float,
        camera: Camera = kitchen.source.camera,
        prior: PoseEstimate | None = None,
        fine: bool = False,
    ) -> VerifiedPose:
        solved = replace(found.solved, error_px=np.full(len(found.solved.error_px), error * map_error_px))
        around = Surroundings(500, 20.0, fine)
        return verifier.rated(camera, solved, found.points, found.xy_px, found.rays, around, prior)

    # As well as the map's own observations is as well as it gets.
    assert rated(0.5).confidence == rated(1.0).confidence > 0.99
    assert rated(1.0).confidence > rated(4.0).confidence > rated(8.0).confidence
    # A camera of half the resolution cannot do better.
    camera = kitchen.source.camera
    half = camera.scaled(camera.width_px // 2, camera.height_px // 2)
    assert rated(5.0, half).evidence.error == pytest.approx(2.5)
    # A prior that allows it speaks for it, one elsewhere against it.
    there = found.answer(scene, 0, "test")
    T = there.T_map_cam
    elsewhere = replace(there, T_map_cam=T @ SE3.exp([0.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    agreeing, unknown, contradicted = (rated(4.0, prior=prior) for prior in (there, None, elsewhere))
    assert (agreeing.evidence.agrees, unknown.evidence.agrees, contradicted.evidence.agrees) == (
        True,
        None,
        False,
    )
    assert agreeing.confidence >= unknown.confidence >= contradicted.confidence
    # As many inliers say less where there were more keypoints to be had.
    assert rated(8.0, fine=True).confidence < rated(8.0).confidence


@pytest.mark.parametrize("fine", [False, True])
def test_evidence_says_of_which_keypoints_it_is(kitchen: Kitchen, fine: bool) -> None:
    scene, frame = MapScene.open(kitchen.scene), kitchen.queries.read(0)
    T_map_cam = kitchen.queries.records[0].T_map_cam
    assert T_map_cam is not None
    view = scene.view(frame, scene.point_map.settings.features.max_keypoints, fine)
    verified = PoseVerifier(scene, 12).verify(view, scene.refined_pose(T_map_cam), None)
    assert verified is not None and verified.evidence.fine is fine
