"""Matching of tracked frames with the map, beside the frames (:mod:`localizer_ros.localization.map_based.beside`).

To find and to describe keypoints takes longer than all else in a tracked frame. The frame itself has its pose from the
points that optical flow has followed; what the matching finds in it is followed into the frame that is there when it is
done. So no tracked frame waits for keypoints, and nothing drifts.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.features.extractors import open_extractor
from localizer_ros.localization.map_based.beside import BesideFrames, LateResult, own_thread
from localizer_ros.localization.map_based.tracking import Track, Tracker
from localizer_ros.localization.map_based.verification import PoseVerifier
from localizer_ros.scene.map_scene import MapScene

logger = logging.getLogger(__name__)

# With less of the points matched last a frame is matched before its turn, so that no later one has to look for its own
# keypoints. On Red Kitchen at 30 Hz that, and to go on meanwhile with fewer points, brought the slowest hundredth of
# tracked frames from 37 ms to 21, 22 and 37 in three runs; its median errors and those of TUM fr1_rpy stayed within 3 %
# of what they were without either and with twice as many points followed.
_SOON_BELOW = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What matching found in a frame.

    Attributes:
        track: the pose by matched points, with any confidence; None when too few were found.
        timings_ms: of its stages.
    """

    track: Track | None
    timings_ms: dict[str, float]


class LateMatching:
    """Matches frames near their tracked poses. Used and closed in one thread, whatever the executor.

    Args:
        tracker: matches; while a matching is under way nobody else may call it.
        latency_s: declared time from a frame to its result, above 0.
        every: one of so many offered frames is matched.
        executor: where it runs, closed with this; None = in the calling thread, when it begins.
    """

    def __init__(
        self, tracker: Tracker, latency_s: float, every: int, executor: Executor | None = None
    ) -> None:
        self._tracker, self._every = tracker, every
        self._beside: BesideFrames[Matched] = BesideFrames(latency_s, executor)
        self._offered = 0
        self._took_ms: float | None = None

    def offer(self, frame: Frame, track: Track, prior: PoseEstimate | None) -> None:
        """Match a frame near its tracked pose when it is time to, or points get lost, and no matching is under way."""
        self._offered += 1
        if (self._offered >= self._every or track.kept < _SOON_BELOW) and self._beside.begin(
            frame, lambda: self._match(frame, track, prior)
        ):
            self._offered = 0

    def collect(self, stamp_ns: int) -> LateResult[Matched] | None:
        """What is handed out with the frame at ``stamp_ns``; None while there is nothing."""
        return self._noted(self._beside.collect(stamp_ns))

    @property
    def is_under_way(self) -> bool:
        """Whether a matching has begun whose result has not been handed out."""
        return self._beside.is_under_way

    def wait(self) -> LateResult[Matched] | None:
        """What is under way, before it is due; None where nothing is."""
        return self._noted(self._beside.wait())

    def take_took_ms(self) -> float | None:
        """How long the matching took that was handed out since this was asked last; None where none was."""
        took_ms, self._took_ms = self._took_ms, None
        return took_ms

    def reset(self) -> None:
        """Never hand out what is under way."""
        self._offered, self._took_ms = 0, None
        self._beside.reset()

    def close(self) -> None:
        """Wait for the matching under way and end the thread."""
        self._beside.close()

    def _noted(self, late: LateResult[Matched] | None) -> LateResult[Matched] | None:
        if late is not None:
            self._took_ms = late.took_ms
        return late

    def _match(self, frame: Frame, track: Track, prior: PoseEstimate | None) -> Matched:
        timer, solved = StageTimer(), track.verified.solved
        try:
            matched = self._tracker.track(frame, solved.T_map_refined, solved.covariance, prior, timer)
        except Exception:
            logger.exception("matching of frame %s failed", frame.label)
            matched = None
        return Matched(matched, timer.timings_ms())


def open_late_matching(
    scene: MapScene, scene_dir: Path, config: LocalizerConfig, threaded: bool
) -> LateMatching | None:
    """What matches tracked frames beside the frames; None where they are matched in place.

    Args:
        scene: the map.
        scene_dir: where it lies.
        config: of search and tracking.
        threaded: matching runs on a thread of its own.

    Raises:
        BackendError: the scene's network of features cannot be used.
    """
    tracking = config.tracking
    if tracking.latency_s == 0.0 or tracking.match_every == 1:
        return None
    if threaded:
        # Extractors are not made for two threads at once; all else in a scene is only read.
        scene = replace(scene, extractor=open_extractor(scene.point_map.settings.features, scene_dir))
    tracker = Tracker(scene, tracking, PoseVerifier(scene, config.search.min_inliers))
    executor = own_thread("matching") if threaded else None
    return LateMatching(tracker, tracking.latency_s, tracking.match_every, executor)
