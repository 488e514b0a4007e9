"""The front end of the structure methods: track where the pose is known, search in full where it is not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from localizer_ros.core.config import StructureLocalizationConfig, TrackingConfig
from localizer_ros.core.se3 import SE3, compose_covariance
from localizer_ros.core.types import Array, Frame, PoseEstimate, RelativePose, SceneError
from localizer_ros.localization.front_end import FrontEnd, Observation
from localizer_ros.localization.global_hierarchical import Found, HierarchicalLocalizer
from localizer_ros.localization.metric_vo import MetricVo
from localizer_ros.localization.structure_scene import StructureScene
from localizer_ros.localization.tracking import Tracker

METHODS = ("hierarchical", "direct", "retrieval", "relative")

# How far a hand-held camera strays from constant velocity within a thirtieth of a second (1 sigma).
_STRAY_RAD = np.radians(0.7)
_STRAY_OF_DEPTH = 0.008
# Motion between two frames is never known better than this: rolling shutter and blur are not in any residual.
_LEAST_MOTION_SIGMA_RAD, _LEAST_MOTION_SIGMA_OF_DEPTH = np.radians(0.08), 1.5e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    stamp_ns: int
    T_map_opt: SE3


class StructureFrontEnd:
    """Implements ``FrontEnd``: tracking with full search to begin with and to fall back on.

    Args:
        scene: map and index.
        search: full search.
        config: of tracking.
    """

    def __init__(self, scene: StructureScene, search: HierarchicalLocalizer, config: TrackingConfig) -> None:
        self._scene, self._search, self._config = scene, search, config
        self._tracker = Tracker(scene, config, search)
        self._vo = MetricVo(scene.structure.calibration)
        self._last: _Seen | None = None
        self._before: _Seen | None = None
        self._last_observed_ns: int | None = None

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        timings: dict[str, float] = {}
        found = self._track(frame, prior, timings) if self._config.enabled else None
        answer: PoseEstimate | None
        if found is not None:
            answer, reason = self._scene.answer(frame, found.solved, "tracking", found.confidence), ""
        else:
            answer = self._search.localize(frame, prior)
            for name, spent in self._search.timings_ms.items():
                timings[f"search_{name}"] = spent
            reason = self._search.reason
            found = self._search.found if answer is not None else None
        started = time.perf_counter()
        relative = self._motion(frame)
        if found is None:
            self._vo.reset()
        else:
            self._before, self._last = self._last, self._anchored(frame, found)
        timings["motion"] = (time.perf_counter() - started) * 1e3
        self._last_observed_ns = frame.stamp_ns
        return Observation(answer, (), relative, reason, timings)

    def reset(self) -> None:
        """See :class:`FrontEnd`."""
        self._last = self._before = None
        self._last_observed_ns = None
        self._vo.reset()

    def close(self) -> None:
        """See :class:`FrontEnd`."""

    def _track(self, frame: Frame, prior: PoseEstimate | None, timings: dict[str, float]) -> Found | None:
        prediction = self._predicted(frame, prior)
        if prediction is None:
            return None
        T, covariance = prediction
        found = self._tracker.track(frame, T, covariance, prior)
        timings.update({f"track_{name}": spent for name, spent in self._tracker.timings_ms.items()})
        return found if found is not None and found.confidence >= self._search.min_confidence else None

    def _predicted(self, frame: Frame, prior: PoseEstimate | None) -> tuple[SE3, Array] | None:
        """Where the camera should be: by its own last motion, else by the prior."""
        c = self._config
        last = self._last
        if last is not None and last.stamp_ns == self._last_observed_ns:
            gap_s = (frame.stamp_ns - last.stamp_ns) * 1e-9
            if 0.0 < gap_s <= c.max_gap_s:
                T, steps = last.T_map_opt, max(1.0, gap_s * 30.0)
                before = self._before
                if before is not None and 0 < last.stamp_ns - before.stamp_ns <= c.max_gap_s * 1e9:
                    motion = (before.T_map_opt.inverse() @ last.T_map_opt).log()
                    fraction = gap_s * 1e9 / (last.stamp_ns - before.stamp_ns)
                    T = T @ SE3.exp(motion * fraction)
                else:
                    steps *= 3.0
                stray = _STRAY_OF_DEPTH * self._scene.structure.median_depth
                return T, np.diag([(_STRAY_RAD * steps) ** 2] * 3 + [(stray * steps) ** 2] * 3)
        if prior is None or prior.covariance is None:
            return None
        if self._tracker.sigma_rad(prior.covariance) > np.radians(c.max_prior_sigma_deg):
            return None
        return self._scene.optical(prior.T_map_cam), prior.covariance

    def _anchored(self, frame: Frame, found: Found) -> _Seen:
        keep = found.solved.inliers
        points = self._scene.structure.points[found.points[keep]]
        depth_m = (points - found.solved.T_map_opt.t) @ found.solved.T_map_opt.R[:, 2]
        self._vo.anchor(frame, found.xy_px[keep], found.rays[keep], depth_m)
        return _Seen(frame.stamp_ns, found.solved.T_map_opt)

    def _motion(self, frame: Frame) -> RelativePose | None:
        """Motion since the frame observed before, when that one was localised."""
        last = self._last
        if last is None or last.stamp_ns != self._last_observed_ns:
            return None
        if not 0 < frame.stamp_ns - last.stamp_ns <= self._config.max_gap_s * 1e9:
            return None
        solved = self._vo.follow(frame)
        if solved is None:
            return None
        T_cam_opt = self._scene.structure.T_cam_opt
        T_prev_cur = T_cam_opt @ solved.T_map_opt @ T_cam_opt.inverse()
        covariance = compose_covariance(solved.covariance, T_cam_opt.inverse())
        least = _LEAST_MOTION_SIGMA_OF_DEPTH * self._scene.structure.median_depth
        covariance = covariance + np.diag([_LEAST_MOTION_SIGMA_RAD**2] * 3 + [least**2] * 3)
        return RelativePose(last.stamp_ns, frame.stamp_ns, T_prev_cur, covariance, "tracking")


class _TimedLocalizer(Protocol):
    reason: str
    timings_ms: dict[str, float]

    def localize(self, frame: Frame, prior: PoseEstimate | None) -> PoseEstimate | None: ...


class SearchFrontEnd:
    """Implements ``FrontEnd`` by a global localizer alone: every frame for itself, no motion."""

    def __init__(self, localizer: _TimedLocalizer) -> None:
        self._localizer = localizer

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """See :class:`FrontEnd`."""
        answer = self._localizer.localize(frame, prior)
        reason = self._localizer.reason if answer is None else ""
        return Observation(answer, (), None, reason, dict(self._localizer.timings_ms))

    def reset(self) -> None:
        """See :class:`FrontEnd`."""

    def close(self) -> None:
        """See :class:`FrontEnd`."""


def open_structure_front_end(scene_dir: Path, method: str, config: StructureLocalizationConfig) -> FrontEnd:
    """The front end of a scene with a map of points.

    Args:
        scene_dir: the scene.
        method: one of ``METHODS``.
        config: thresholds.

    Raises:
        SceneError: a file is missing or damaged, or the method is none of these.
    """
    if method not in METHODS:
        raise SceneError(f"{scene_dir}: method {method!r} is not one of {', '.join(METHODS)}")
    scene = StructureScene.open(scene_dir)
    if method == "retrieval":
        from localizer_ros.localization.global_retrieval import RetrievalLocalizer

        return SearchFrontEnd(RetrievalLocalizer(scene, config.search))
    if method == "relative":
        from localizer_ros.localization.global_relative import RelativeLocalizer

        return SearchFrontEnd(RelativeLocalizer(scene, config.search))
    search = HierarchicalLocalizer(scene, config.search, direct=method == "direct")
    return StructureFrontEnd(scene, search, config.tracking)
