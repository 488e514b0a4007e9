"""The front end of a learned scene with a map: the network proposes, the map refines and verifies, tracking goes on.

A regressed pose is right to some decimetres and degrees: enough to know where to look in the map. So the first fix
needs one frame and no retrieval; from there on points are tracked as in every scene with a map, and the network rests
until they are lost.
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
        proposer: observes the frames that tracking does not place; what it says of poses is a proposal, what it says of
            motions is used where tracking knows none.
        scene: map and index.
        method: name of the proposer.
        config: of search and tracking.
        matching: matches tracked frames beside the frames; None = in place.
        every_frame: the proposer has to see every frame, as networks with a memory have.
    """

    def __init__(
        self,
        proposer: FrontEnd,
        scene: MapScene,
        method: str,
        config: LocalizerConfig,
        matching: LateMatching | None = None,
        every_frame: bool = False,
    ) -> None:
        verifier = PoseVerifier(scene, config.search.min_inliers)
        refiner = Refiner(scene, config.tracking, verifier, proposal_window_px(scene))
        self._proposer, self._every_frame = proposer, every_frame
        self._unproposed = ProposalSearch(scene, config.search, refiner, Observation, method)
        self._tracking = TrackingFrontEnd(scene, self._unproposed, config, matching=matching)
        self._last_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        asked: list[Observation] = []

        def propose() -> Observation:
            if not asked:
                asked.append(self._proposer.observe(frame, prior))
            return asked[0]

        if self._every_frame:
            propose()
        refined = self._tracking.observe_with(replace(self._unproposed, propose=propose), frame, prior)
        last_ns, self._last_ns = self._last_ns, frame.stamp_ns
        if not asked:
            return refined
        moved = asked[0].relative
        # From the frame before, and not from an earlier one that the network has seen.
        since_last = moved if moved is not None and moved.stamp_prev_ns == last_ns else None
        return replace(
            refined,
            relative=refined.relative or since_last,
            out_of_distribution=asked[0].out_of_distribution,
            timings_ms={**asked[0].timings_ms, **refined.timings_ms},
        )

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.reset()
        self._tracking.reset()
        self._last_ns = None

    def lost(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.lost()
        self._tracking.lost()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        self._proposer.close()
        self._tracking.close()


def open_refined(
    proposer: FrontEnd,
    scene_dir: Path,
    method: str,
    config: LocalizerConfig,
    threaded: bool,
    every_frame: bool,
) -> FrontEnd:
    """The front end that refines what another one proposes; see :class:`RefinedFrontEnd`.

    Raises:
        SceneError: a file of the map is missing or damaged.
        BackendError: a network of it cannot be used.
    """
    scene = MapScene.open(scene_dir)
    scene.point_map.prepare()
    matching = open_late_matching(scene, scene_dir, config, threaded)
    return RefinedFrontEnd(proposer, scene, method, config, matching, every_frame)
