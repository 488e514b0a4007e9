"""The front end of methods with a map of points: track where the pose is known, search in full where it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.timing import StageTimer
from localizer_ros.core.types import LATE_MATCHING, Array, Frame, PoseEstimate
from localizer_ros.features.extractors import open_extractor
from localizer_ros.localization.front_end import TRACKING, FrontEnd, Observation
from localizer_ros.localization.map_based.beside import LateResult, own_thread
from localizer_ros.localization.map_based.hierarchical import HierarchicalLocalizer
from localizer_ros.localization.map_based.late_matching import LateMatching, Matched, open_late_matching
from localizer_ros.localization.map_based.late_search import UNDER_WAY, LateSearch
from localizer_ros.localization.map_based.measured_motion import MeasuredMotion, anchor
from localizer_ros.localization.map_based.motion_model import (
    constant_velocity,
    flow_covariance,
    stray_covariance,
)
from localizer_ros.localization.map_based.optical_flow import FlowMotion, OpticalFlow
from localizer_ros.localization.map_based.search import GlobalLocalizer, SearchResult, elsewhere, seen_points
from localizer_ros.localization.map_based.search_front_end import (
    SearchFrontEnd,
    open_search,
    with_late_result,
)
from localizer_ros.localization.map_based.tracking import Track, Tracker
from localizer_ros.localization.map_based.verification import PoseVerifier
from localizer_ros.scene.map_scene import MapScene

# Of the points matched last: with less, a frame looks for its own keypoints. To go on with fewer (0.3) made rotations
# of every fourth frame of Red Kitchen 11 % worse in the median; while an earlier frame is being matched, it is for a
# frame or two.
_LEAST_KEPT, _LEAST_WHILE_MATCHED = 0.6, 0.4


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A frame with a tracked pose."""

    stamp_ns: int
    track: Track


class TrackingFrontEnd:
    """Implements ``FrontEnd``: tracking with full search to begin with and to fall back on.

    Args:
        scene: map and index.
        localizer: full search.
        config: of search and tracking.
        late: runs the full search beside the frames; None = in place.
        matching: matches tracked frames beside the frames; None = in place.
    """

    def __init__(
        self,
        scene: MapScene,
        localizer: GlobalLocalizer,
        config: LocalizerConfig,
        late: LateSearch | None = None,
        matching: LateMatching | None = None,
    ) -> None:
        self._scene, self._localizer, self._late, self._matching = scene, localizer, late, matching
        self._config = config.tracking
        self._least_confidence = scene.confidence.least_accepted(config.search.max_wrong)
        self._tracker = Tracker(scene, config.tracking, PoseVerifier(scene, config.search.min_inliers))
        self._motion = MeasuredMotion(scene, config.tracking)
        self._last: _Seen | None = None
        self._before: _Seen | None = None
        self._last_observed_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        return self.observe_with(self._localizer, frame, prior)

    def observe_with(
        self, localizer: GlobalLocalizer, frame: Frame, prior: PoseEstimate | None
    ) -> Observation:
        """The same with another full search, where it is not the late one that is due."""
        timer = StageTimer()
        late = None if self._late is None else self._late.collect(frame.stamp_ns)
        matched = None if self._matching is None else self._matching.collect(frame.stamp_ns)
        motion = self._motion.follow(frame, timer)
        track = self._track(frame, motion, prior, late, matched, timer)
        if track is not None:
            verified = track.verified
            tracked = verified.answer(self._scene, frame.stamp_ns, TRACKING)
            result = SearchResult(tracked, seen=seen_points(verified, frame.camera))
        else:
            result = self._search(localizer, frame, prior, timer)
            track = None if result.verified is None else Track(result.verified)
        answer = result.answer
        relative = self._motion.since_last(frame, motion, track is not None, timer)
        if answer is not None and relative is not None:
            answer = self._motion.with_timing(answer, relative)
        self._motion.remember(frame, track)
        if track is not None:
            self._before, self._last = self._last, _Seen(frame.stamp_ns, track)
        self._last_observed_ns = frame.stamp_ns
        observation = with_late_result(late, answer, relative, result.reason, timer)
        found = [result] if late is None else [result, late.result]
        shown = elsewhere(self._scene, self._least_confidence, found)
        took_ms = None if self._matching is None else self._matching.take_took_ms()
        beside_ms = observation.beside_ms | ({} if took_ms is None else {LATE_MATCHING: took_ms})
        return replace(observation, beside_ms=beside_ms, seen=result.seen, elsewhere=shown)

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        self._last = self._before = None
        self._last_observed_ns = None
        self._motion.reset()
        for beside in (self._late, self._matching):
            if beside is not None:
                beside.reset()

    def lost(self) -> None:
        """See :class:`FrontEnd`: tracking has confirmed its own errors, and motions rest on its points."""
        self.reset()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        for beside in (self._late, self._matching):
            if beside is not None:
                beside.close()

    def _track(
        self,
        frame: Frame,
        motion: FlowMotion | None,
        prior: PoseEstimate | None,
        late: LateResult[SearchResult] | None,
        matched: LateResult[Matched] | None,
        timer: StageTimer,
    ) -> Track | None:
        """The tracked pose, from the frame before or else from the frame of a late result."""
        if not self._config.enabled:
            return None
        track: Track | None = None
        # A pose that nobody believes yet is not tracked: tracking would say the same again, and confirm nothing.
        if prior is not None:
            track = self._track_on(frame, motion, prior, matched, timer)
        if track is None and late is not None:
            track = self._catch_up(frame, late, prior, timer)
        return track

    def _track_on(
        self,
        frame: Frame,
        motion: FlowMotion | None,
        prior: PoseEstimate,
        matched: LateResult[Matched] | None,
        timer: StageTimer,
    ) -> Track | None:
        last = self._last
        if motion is None or last is None or last.stamp_ns != self._last_observed_ns:
            prediction = self._predicted(frame, prior)
            return None if prediction is None else self._track_near(frame, *prediction, prior, timer)
        T = last.track.T_map_refined @ motion.T_prev_cur
        if self._matching is not None or last.track.age + 1 < self._config.match_every:
            with timer.stage("track_carry"):
                track = self._carried(frame, motion, T, prior, matched)
                if not self._is_sure(track) and self._matching is not None:
                    # What is being matched already is there sooner than keypoints of this frame.
                    matched = self._matching.wait()
                    if matched is not None:
                        track = self._carried(frame, motion, T, prior, matched)
            if track is not None and self._is_sure(track):
                if self._matching is not None:
                    with timer.stage("track_match"):
                        self._matching.offer(frame, track, prior)
                return track
        covariance = compose_covariance(
            last.track.verified.solved.covariance,
            motion.T_prev_cur,
            flow_covariance(motion.solved, self._scene.point_map.median_depth),
        )
        return self._track_near(frame, T, covariance, prior, timer)

    def _carried(
        self,
        frame: Frame,
        motion: FlowMotion,
        T: SE3,
        prior: PoseEstimate,
        matched: LateResult[Matched] | None,
    ) -> Track | None:
        """The pose by followed points: those of an earlier frame whose matching is done, else of the frame before."""
        assert self._last is not None
        if matched is not None:
            track = matched.result.track
            if track is None or not self._is_believed(track):
                # What the map does not confirm is not followed any further.
                return None
            flow = OpticalFlow(self._scene.point_map.camera)
            anchor(self._scene.point_map, flow, matched.frame, track)
            since = flow.follow(frame, track.T_map_refined.inverse() @ T)
            track = None if since is None else self._tracker.carry(frame, track, since, T, prior)
            if self._is_sure(track):
                return track
        return self._tracker.carry(frame, self._last.track, motion, T, prior)

    def _is_believed(self, track: Track) -> bool:
        """Whether a match may be an answer: tracking confirms its own errors, but not against the prior."""
        verified = track.verified
        return verified.evidence.agrees is not False and verified.confidence >= self._least_confidence

    def _is_sure(self, track: Track | None) -> bool:
        """Whether followed points are enough, without new ones."""
        if track is None or not self._is_believed(track):
            return False
        matched_soon = self._matching is not None and self._matching.is_under_way
        return track.kept >= (_LEAST_WHILE_MATCHED if matched_soon else _LEAST_KEPT)

    def _track_near(
        self, frame: Frame, T: SE3, covariance: Array, prior: PoseEstimate | None, timer: StageTimer
    ) -> Track | None:
        track = self._tracker.track(frame, T, covariance, prior, timer)
        return track if track is not None and self._is_believed(track) else None

    def _catch_up(
        self, frame: Frame, late: LateResult[SearchResult], prior: PoseEstimate | None, timer: StageTimer
    ) -> Track | None:
        """From the answer to an earlier frame to this one: its points are followed here by optical flow."""
        if late.result.verified is None:
            return None
        with timer.stage("catch_up"):
            flow = OpticalFlow(self._scene.point_map.camera)
            seen = _Seen(late.frame.stamp_ns, Track(late.result.verified))
            anchor(self._scene.point_map, flow, late.frame, seen.track)
            motion = flow.follow(frame)
        if motion is None:
            return None
        T = seen.track.T_map_refined @ motion.T_prev_cur
        covariance = stray_covariance(self._scene.point_map.median_depth)
        track = self._track_near(frame, T, covariance, prior, timer)
        if track is not None:
            # The velocity of the next prediction.
            self._last = seen
        return track

    def _search(
        self, localizer: GlobalLocalizer, frame: Frame, prior: PoseEstimate | None, timer: StageTimer
    ) -> SearchResult:
        """Of a full search, which may only have begun."""
        if self._late is not None:
            with timer.stage("search"):
                self._late.begin(frame, prior)
            return SearchResult(None, UNDER_WAY)
        result = localizer.localize(frame, prior)
        timer.add(result.timings_ms, "search_")
        return result

    def _predicted(self, frame: Frame, prior: PoseEstimate) -> tuple[SE3, Array] | None:
        """Where the camera should be: by its own last motion, else by the prior."""
        max_gap_ns, depth_m = self._config.max_gap_s * 1e9, self._scene.point_map.median_depth
        last, before = self._last, self._before
        observed_last = last is not None and last.stamp_ns == self._last_observed_ns
        if last is not None and observed_last and 0 < frame.stamp_ns - last.stamp_ns <= max_gap_ns:
            if before is not None and not 0 < last.stamp_ns - before.stamp_ns <= max_gap_ns:
                before = None
            return constant_velocity(
                (last.stamp_ns, last.track.T_map_refined),
                None if before is None else (before.stamp_ns, before.track.T_map_refined),
                frame.stamp_ns,
                depth_m,
            )
        if prior.covariance is None:
            return None
        if self._scene.view_sigma_rad(prior.covariance) > np.radians(self._config.max_prior_sigma_deg):
            return None
        return self._scene.refined_pose(prior.T_map_cam), prior.covariance


def open_map_front_end(
    scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool = False
) -> FrontEnd:
    """The front end of a scene with a map; see :class:`localizer_ros.localization.open.Opener`.

    Raises:
        SceneError: a file is missing or damaged.
        ConfigError: settings of the search do not fit the method.
    """
    return front_end_on(MapScene.open(scene_dir), scene_dir, method, config, threaded)


def front_end_on(
    scene: MapScene, scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool
) -> FrontEnd:
    """The same on a map that is open already: several cameras share one."""
    # Extractors are not made for two threads at once; all else in a scene is only read.
    extractor = open_extractor(scene.point_map.settings.features, scene_dir) if threaded else scene.extractor
    localizer = open_search(replace(scene, extractor=extractor), method, config.search)
    late: LateSearch | None = None
    # A frame that stands for itself is answered at once or never.
    if config.search.latency_s > 0.0 and not config.independent:
        late = LateSearch(localizer, config.search.latency_s, own_thread("search") if threaded else None)
    if isinstance(localizer, HierarchicalLocalizer):
        scene.point_map.prepare()
        return TrackingFrontEnd(
            scene, localizer, config, late, open_late_matching(scene, scene_dir, config, threaded)
        )
    return SearchFrontEnd(localizer, late)
