"""The front end of a learned scene with a map: the network proposes, the map refines and verifies, tracking goes on.

A regressed pose is right to some decimetres and degrees: enough to know where to look in the map. So the first fix
needs one frame and no retrieval; from there on points are tracked as in every scene with a map.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.map_based.front_end import TrackingFrontEnd
from localizer_ros.localization.map_based.late_matching import LateMatching, open_late_matching
from localizer_ros.localization.map_based.verification import PoseVerifier
from localizer_ros.localization.refine import ProposalSearch, Refiner, proposal_window_px
from localizer_ros.scene.map_scene import MapScene


class RefinedFrontEnd:
    """Implements ``FrontEnd``: poses of another front end, refined and tracked in the map.

    Args:
        proposer: observes every frame; what it says of poses is a proposal, what it says of motions is used where
            tracking knows none.
        scene: map and index.
        method: name of the proposer.
        config: of search and tracking.
        matching: matches tracked frames beside the frames; None = in place.
    """

    def __init__(
        self,
        proposer: FrontEnd,
        scene: MapScene,
        method: str,
        config: LocalizerConfig,
        matching: LateMatching | None = None,
    ) -> None:
        verifier = PoseVerifier(scene, config.search.min_inliers)
        refiner = Refiner(scene, config.tracking, verifier, proposal_window_px(scene))
        self._proposer = proposer
        self._unproposed = ProposalSearch(scene, config.search, refiner, None, "nothing is proposed", method)
        self._tracking = TrackingFrontEnd(scene, self._unproposed, config, matching=matching)

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        proposed = self._proposer.observe(frame, prior)
        search = replace(self._unproposed, proposal=proposed.absolute, reason=proposed.reason)
        refined = self._tracking.observe_with(search, frame, prior)
        return replace(
            refined,
            relative=refined.relative or proposed.relative,
            out_of_distribution=proposed.out_of_distribution,
            timings_ms={**proposed.timings_ms, **refined.timings_ms},
        )

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.reset()
        self._tracking.reset()

    def lost(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.lost()
        self._tracking.lost()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.close()
        self._tracking.close()


def open_refined(
    proposer: FrontEnd, scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool
) -> FrontEnd:
    """The front end that refines what another one proposes.

    Raises:
        SceneError: a file of the map is missing or damaged.
        BackendError: a network of it cannot be used.
    """
    scene = MapScene.open(scene_dir)
    scene.point_map.prepare()
    matching = open_late_matching(scene, scene_dir, config, threaded)
    return RefinedFrontEnd(proposer, scene, method, config, matching)
