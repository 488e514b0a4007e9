"""The front end of the structure methods: track where the pose is known, search in full where it is not."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from localizer_ros.core.config.map_based import SearchConfig, TrackingConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Frame, PoseEstimate, RelativePose, SceneError
from localizer_ros.features.local_features import open_extractor
from localizer_ros.geometry.pose_solver import SolvedPose
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.map_based.hierarchical import Found, HierarchicalLocalizer
from localizer_ros.localization.map_based.late_search import InPlace, LateSearch, Searched, own_thread
from localizer_ros.localization.map_based.optical_flow import Followed, OpticalFlow
from localizer_ros.localization.map_based.tracking import Tracker
from localizer_ros.scene.map_scene import CORRELATION_S, MapScene

# How far a hand-held camera strays from constant velocity within a thirtieth of a second (1 sigma).
_STRAY_RAD = np.radians(0.7)
_STRAY_OF_DEPTH = 0.008
# Of the points matched last, and of confidence: with less, new points are matched before it is time.
_LEAST_KEPT, _SURE = 0.6, 0.9
# Motion between two frames is never known better than this: rolling shutter and blur are not in any residual.
_LEAST_MOTION_SIGMA_RAD, _LEAST_MOTION_SIGMA_OF_DEPTH = np.radians(0.08), 1.5e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    stamp_ns: int
    found: Found

    @property
    def T_map_refined(self) -> SE3:
        return self.found.solved.T_map_refined


class TrackingFrontEnd:
    """Implements ``FrontEnd``: tracking with full search to begin with and to fall back on.

    Args:
        scene: map and index.
        search: full search.
        config: of tracking.
        late: runs the full search beside the frames; None = in place.
    """

    def __init__(
        self,
        scene: MapScene,
        search: HierarchicalLocalizer,
        config: TrackingConfig,
        late: LateSearch | None = None,
    ) -> None:
        self._scene, self._search, self._config, self._late = scene, search, config, late
        self._tracker = Tracker(scene, config, search)
        self._vo = OpticalFlow(scene.point_map.camera)
        self._last: _Seen | None = None
        self._before: _Seen | None = None
        self._last_observed_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        timings: dict[str, float] = {}
        searched = None if self._late is None else self._late.collect(frame.stamp_ns)
        followed = self._follow(frame, timings)
        # A pose that nobody believes yet is not tracked: tracking would say the same again, and confirm nothing.
        tracked = self._config.enabled and prior is not None
        found = self._track(frame, followed, prior, timings) if tracked else None
        if found is None and searched is not None and self._config.enabled:
            found = self._catch_up(frame, searched, prior, timings)
        answer: PoseEstimate | None = None
        reason = ""
        if found is not None:
            answer = self._scene.answer(frame, found.solved, "tracking", found.confidence)
        elif self._late is None:
            now = search_in_full(self._search, frame, prior)
            answer, found, reason = now.answer, now.found, now.reason
            timings.update({f"search_{name}": spent for name, spent in now.timings_ms.items()})
        else:
            reason = _begin(self._late, frame, prior, timings)
        relative = self._motion(frame, followed)
        if answer is not None and relative is not None:
            answer = self._timed(answer, relative)
        if found is not None:
            self._before, self._last = self._last, self._anchored(frame, found)
        else:
            self._vo.go_on()
        self._last_observed_ns = frame.stamp_ns
        return _observation(answer, searched, relative, reason, timings)

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        self._last = self._before = None
        self._last_observed_ns = None
        self._vo.reset()
        if self._late is not None:
            self._late.reset()

    def lost(self) -> None:
        """See :class:`FrontEnd`: tracking has confirmed its own errors, and motions rest on its points."""
        self.reset()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        if self._late is not None:
            self._late.close()

    def _follow(self, frame: Frame, timings: dict[str, float]) -> Followed | None:
        """The points of the frame observed before, when it is not long ago."""
        prev_ns = self._vo.stamp_ns
        if prev_ns is None or prev_ns != self._last_observed_ns:
            return None
        if not 0 < frame.stamp_ns - prev_ns <= self._config.max_gap_s * 1e9:
            return None
        started = time.perf_counter()
        followed = self._vo.follow(frame)
        timings["track_flow"] = (time.perf_counter() - started) * 1e3
        return followed

    def _track(
        self, frame: Frame, followed: Followed | None, prior: PoseEstimate | None, timings: dict[str, float]
    ) -> Found | None:
        last = self._last
        if followed is not None and last is not None and last.stamp_ns == self._last_observed_ns:
            T = last.T_map_refined @ followed.solved.T_map_refined
            if last.found.carried + 1 < self._config.match_every:
                found = self._tracker.carry(frame, last.found, followed, T, prior)
                self._add_timings(timings)
                if (
                    found is not None
                    and found.kept >= _LEAST_KEPT
                    and found.confidence >= _SURE
                    and found.agrees is not False
                ):
                    return found
            covariance = compose_covariance(
                last.found.solved.covariance,
                followed.solved.T_map_refined,
                self._motion_covariance(followed.solved),
            )
            return self._track_near(frame, T, covariance, prior, timings)
        prediction = self._predicted(frame, prior)
        if prediction is None:
            return None
        return self._track_near(frame, *prediction, prior, timings)

    def _track_near(
        self, frame: Frame, T: SE3, covariance: Array, prior: PoseEstimate | None, timings: dict[str, float]
    ) -> Found | None:
        found = self._tracker.track(frame, T, covariance, prior)
        self._add_timings(timings)
        # Tracking confirms its own errors: what contradicts the prior is searched for as if nothing were known.
        if found is None or found.confidence < self._search.min_confidence or found.agrees is False:
            return None
        return found

    def _add_timings(self, timings: dict[str, float]) -> None:
        for name, spent in self._tracker.timings_ms.items():
            timings[f"track_{name}"] = timings.get(f"track_{name}", 0.0) + spent

    def _catch_up(
        self, frame: Frame, searched: Searched, prior: PoseEstimate | None, timings: dict[str, float]
    ) -> Found | None:
        """From the answer to an earlier frame to this one: its points are followed here by optical flow."""
        if searched.found is None:
            return None
        started = time.perf_counter()
        vo = OpticalFlow(self._scene.point_map.camera)
        seen = self._anchored(searched.frame, searched.found, vo)
        moved = vo.follow(frame)
        timings["catch_up"] = (time.perf_counter() - started) * 1e3
        if moved is None:
            return None
        stray = _STRAY_OF_DEPTH * self._scene.point_map.median_depth
        covariance = np.diag([_STRAY_RAD**2] * 3 + [stray**2] * 3)
        found = self._track_near(
            frame, seen.T_map_refined @ moved.solved.T_map_refined, covariance, prior, timings
        )
        if found is not None:
            # The velocity of the next prediction.
            self._last = seen
        return found

    def _predicted(self, frame: Frame, prior: PoseEstimate | None) -> tuple[SE3, Array] | None:
        """Where the camera should be: by its own last motion, else by the prior."""
        c = self._config
        last = self._last
        if last is not None and last.stamp_ns == self._last_observed_ns:
            gap_s = (frame.stamp_ns - last.stamp_ns) * 1e-9
            if 0.0 < gap_s <= c.max_gap_s:
                T, steps = last.T_map_refined, max(1.0, gap_s * 30.0)
                before = self._before
                if before is not None and 0 < last.stamp_ns - before.stamp_ns <= c.max_gap_s * 1e9:
                    motion = (before.T_map_refined.inverse() @ last.T_map_refined).log()
                    fraction = gap_s * 1e9 / (last.stamp_ns - before.stamp_ns)
                    T = T @ SE3.exp(motion * fraction)
                else:
                    steps *= 3.0
                stray = _STRAY_OF_DEPTH * self._scene.point_map.median_depth
                return T, np.diag([(_STRAY_RAD * steps) ** 2] * 3 + [(stray * steps) ** 2] * 3)
        if prior is None or prior.covariance is None:
            return None
        if self._tracker.sigma_rad(prior.covariance) > np.radians(c.max_prior_sigma_deg):
            return None
        return self._scene.refined_pose(prior.T_map_cam), prior.covariance

    def _anchored(self, frame: Frame, found: Found, vo: OpticalFlow | None = None) -> _Seen:
        keep = found.solved.inliers
        points = found.points[keep]
        T = found.solved.T_map_refined
        depth_m = (self._scene.point_map.points[points] - T.t) @ T.R[:, 2]
        (vo or self._vo).anchor(frame, found.xy_px[keep], found.rays[keep], depth_m, points)
        return _Seen(frame.stamp_ns, found)

    def _motion(self, frame: Frame, followed: Followed | None) -> RelativePose | None:
        """Motion since the frame observed before, when points of known depth were seen in that one."""
        if followed is None:
            return None
        prev_ns = self._last_observed_ns
        assert prev_ns is not None
        elapsed_s = (frame.stamp_ns - prev_ns) * 1e-9
        T_cam_refined = self._scene.point_map.T_cam_refined
        T_prev_cur = T_cam_refined @ followed.solved.T_map_refined @ T_cam_refined.inverse()
        covariance = compose_covariance(self._motion_covariance(followed.solved), T_cam_refined.inverse())
        covariance = covariance + self._timing_covariance(T_prev_cur, elapsed_s)
        return RelativePose(prev_ns, frame.stamp_ns, T_prev_cur, covariance, "tracking", CORRELATION_S)

    def _motion_covariance(self, solved: SolvedPose) -> Array:
        """(6, 6) of a motion found by optical flow, in its tangent."""
        least = _LEAST_MOTION_SIGMA_OF_DEPTH * self._scene.point_map.median_depth
        return solved.covariance + np.diag([_LEAST_MOTION_SIGMA_RAD**2] * 3 + [least**2] * 3)

    def _timing_covariance(self, T_prev_cur: SE3, elapsed_s: float) -> Array:
        """(6, 6) of a pose whose time is not exactly that of its stamp, while the camera moves like this."""
        moved = T_prev_cur.log() * (self._config.timing_sigma_ms * 1e-3 / elapsed_s)
        return np.outer(moved, moved)

    def _timed(self, answer: PoseEstimate, relative: RelativePose) -> PoseEstimate:
        assert answer.covariance is not None
        elapsed_s = (relative.stamp_cur_ns - relative.stamp_prev_ns) * 1e-9
        timing = self._timing_covariance(relative.T_prev_cur, elapsed_s)
        return replace(answer, covariance=answer.covariance + timing)


class _TimedLocalizer(Protocol):
    reason: str
    timings_ms: dict[str, float]

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None: ...


class SearchFrontEnd:
    """Implements ``FrontEnd`` by a global localizer alone: every frame for itself, no motion.

    Args:
        localizer: finds the frames.
        late: runs it beside the frames; None = in place.
    """

    def __init__(self, localizer: _TimedLocalizer, late: LateSearch | None = None) -> None:
        self._localizer, self._late = localizer, late

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        if self._late is None:
            now = search_in_full(self._localizer, frame, prior)
            return Observation(now.answer, (), None, now.reason, now.timings_ms)
        timings: dict[str, float] = {}
        searched = self._late.collect(frame.stamp_ns)
        reason = _begin(self._late, frame, prior, timings)
        return _observation(None, searched, None, reason, timings)

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        if self._late is not None:
            self._late.reset()

    def lost(self) -> None:
        """See :class:`FrontEnd`: a search under way was told where to look."""
        self.reset()

    def close(self) -> None:
        """See :class:`FrontEnd`."""
        if self._late is not None:
            self._late.close()


def search_in_full(localizer: _TimedLocalizer, frame: Frame, prior: PoseEstimate | None) -> Searched:
    """What a global localizer makes of a frame."""
    answer = localizer.localize(frame, prior)
    reason, found = "", None
    if answer is None:
        reason = localizer.reason
    elif isinstance(localizer, HierarchicalLocalizer):
        found = localizer.found
    return Searched(frame, answer, reason, found, dict(localizer.timings_ms))


def _begin(late: LateSearch, frame: Frame, prior: PoseEstimate | None, timings: dict[str, float]) -> str:
    """Search the frame beside the others; the reason why it has no pose yet."""
    started = time.perf_counter()
    late.begin(frame, prior)
    timings["search"] = (time.perf_counter() - started) * 1e3
    return "search under way"


def _observation(
    answer: PoseEstimate | None,
    searched: Searched | None,
    relative: RelativePose | None,
    reason: str,
    timings: dict[str, float],
) -> Observation:
    """The observation of a frame with which the answer of an earlier one may have come."""
    if searched is None:
        return Observation(answer, (), relative, reason, timings)
    late = () if searched.answer is None else (searched.answer,)
    reasons = [why for why in (searched.reason, reason) if why]
    return Observation(answer, late, relative, "; ".join(reasons), timings, searched.took_ms)


def open_map_front_end(
    scene_dir: Path, method: str, config: LocalizerConfig, threaded: bool = False
) -> FrontEnd:
    """The front end of a scene with a map of points.

    Args:
        scene_dir: the scene.
        method: one of those that match with a map.
        config: thresholds.
        threaded: late searches run on a thread of their own instead of in place.

    Raises:
        SceneError: a file is missing or damaged, or the method is none of these.
    """
    scene = MapScene.open(scene_dir)
    # Extractors are not made for two threads at once; all else in a scene is only read.
    extractor = open_extractor(scene.point_map.settings.features, scene_dir) if threaded else scene.extractor
    localizer = _localizer(replace(scene, extractor=extractor), method, config.search)
    late: LateSearch | None = None
    if config.search.latency_s > 0.0:
        search = partial(search_in_full, localizer)
        late = LateSearch(search, config.search.latency_s, own_thread() if threaded else InPlace())
    if isinstance(localizer, HierarchicalLocalizer):
        scene.point_map.prepare()
        return TrackingFrontEnd(scene, localizer, config.tracking, late)
    return SearchFrontEnd(localizer, late)


def _localizer(scene: MapScene, method: str, config: SearchConfig) -> _TimedLocalizer:
    if method == "retrieval":
        from localizer_ros.localization.map_based.pose_interpolation import RetrievalLocalizer

        return RetrievalLocalizer(scene, config)
    if method == "relative":
        from localizer_ros.localization.map_based.relative_pose import RelativeLocalizer

        return RelativeLocalizer(scene, config)
    if method == "local":
        from localizer_ros.localization.map_based.local_map import LocalMapLocalizer

        return LocalMapLocalizer(scene, config)
    if method in ("hierarchical", "direct"):
        return HierarchicalLocalizer(scene, config, direct=method == "direct")
    raise SceneError(f"method {method!r} does not match with a map")
