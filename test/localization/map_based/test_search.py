"""Passes of a search: finer keypoints only where coarse ones fail and nobody knows the pose otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kitchen import Kitchen

from localizer_ros.core.config.map_based import SearchConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.map_based.search import ViewResult, search_in_passes
from localizer_ros.scene.map_scene import MapScene, View

pytestmark = pytest.mark.slow


class _Fails:
    """Finds nothing, and keeps what it was shown."""

    def __init__(self) -> None:
        self.fine: list[bool] = []

    def search(self, frame: Frame, view: View, prior: PoseEstimate | None, timer: StageTimer) -> ViewResult:
        self.fine.append(view.features.fine)
        return ViewResult(None, "nothing found")


@pytest.mark.parametrize(
    ("setting", "lost", "known"),
    [("never", [False], [False]), ("fallback", [False, True], [False]), ("always", [True], [True])],
)
def test_which_keypoints_are_looked_for(
    kitchen: Kitchen, setting: str, lost: list[bool], known: list[bool]
) -> None:
    scene, frame = MapScene.open(kitchen.scene), kitchen.queries.read(0)
    config = SearchConfig(fine_features=setting)  # type: ignore[arg-type]
    prior = PoseEstimate(frame.stamp_ns, SE3.identity(), np.eye(6) * 1e-4, "test")
    vague = replace(prior, covariance=np.eye(6))
    for given, asked in ((None, lost), (vague, lost), (prior, known)):
        searcher = _Fails()
        result = search_in_passes(searcher, scene, config, "test", frame, given)
        assert result.answer is None and result.reason == "nothing found" and searcher.fine == asked
