"""Run the localizer over a recording as the node would, and measure the answers.

One pass gives the smoothed answers, the raw answers before gating and smoothing, the nearest-neighbour baseline, and
odometry by itself: the motions that were measured, added up.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, PoseEstimate, SourceError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.evaluation.answers import Answer, percentiles
from localizer_ros.evaluation.environment import peak_rss_mb, versions
from localizer_ros.evaluation.geometric_vo import GeometricMotion, GeometricVo
from localizer_ros.evaluation.measured_motions import odometry_by_source
from localizer_ros.evaluation.metrics import Metrics, compute_metrics
from localizer_ros.evaluation.odometry_metrics import OdometryMetrics
from localizer_ros.evaluation.off_path import off_path_table
from localizer_ros.evaluation.run_localizer import UNREADABLE, FrameLocalizer, FrameResult, run_localizer
from localizer_ros.evaluation.verdict import Verdict, judge
from localizer_ros.scene.bundle import Scene

Kind = Literal["smoothed", "raw", "nearest_neighbour"]


class Baseline(Protocol):
    """What evaluation needs of ``scene.nearest_image.NearestNeighbour``."""

    @property
    def poses(self) -> Sequence[SE3]:
        """N poses ``T_map_cam`` of the mapping images."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """N names of the mapping images."""
        ...

    def nearest(self, frame: Frame) -> int:
        """Index of the mapping image that looks most alike."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OpenScene:
    """A scene that is ready to be evaluated.

    Attributes:
        scene: what is localized in.
        localizer: freshly opened for it.
        config: of the localizer; goes into the result.
        baseline: to stand beside the result, None without one; costs a network call a frame, which is not part of the
            latency.
    """

    scene: Scene
    localizer: FrameLocalizer
    config: LocalizerConfig
    baseline: Baseline | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run over a recording with everything a report needs.

    Attributes:
        scene: what was localized in.
        baseline: mapping images of the scene; None when it has none or the baseline was not asked for.
        recording: the whole recording.
        source: the part of it that was run, for reading its images again.
        split: name of that part.
        config: of the localizer.
        frames: one result a frame, in the order they were run.
        nearest: for each of them the index of the mapping image that looks most alike; None without a baseline, and
            for frames that could not be read.
        odometry: motions alone by what measured them (``vo``, ``tracking``, ``odom``, ``geometric``), added up.
        peak_rss_mb: largest resident memory of the process up to the end of the run, MiB.
        wall_s: time of the whole run, reading of images included.
        versions: of this package and what it stands on.
    """

    scene: Scene
    baseline: Baseline | None
    recording: FrameSource
    source: FrameSource
    split: str
    config: LocalizerConfig
    frames: Sequence[FrameResult]
    nearest: Sequence[int | None]
    odometry: dict[str, OdometryMetrics]
    peak_rss_mb: float
    wall_s: float
    versions: dict[str, str]

    @cached_property
    def metrics(self) -> Metrics:
        """Of the answers of the localizer (``output.estimate``)."""
        return compute_metrics(self.answers())

    @cached_property
    def raw(self) -> Metrics:
        """Of the absolute answers before gating and smoothing (``output.absolute``)."""
        return compute_metrics(self.answers("raw"))

    @cached_property
    def nearest_neighbour(self) -> Metrics | None:
        """Of the pose of the mapping image that looks most alike; None without a baseline."""
        return None if self.baseline is None else compute_metrics(self.answers("nearest_neighbour"))

    @property
    def mapping_poses(self) -> Sequence[SE3]:
        """Poses ``T_map_cam`` of the mapping images; empty when the scene does not have them."""
        return self.baseline.poses if self.baseline is not None else ()

    @property
    def verdict(self) -> Verdict:
        """Good, doubtful or bad, and why."""
        return judge(self.metrics, self.raw, self.nearest_neighbour)

    def answers(self, kind: Kind = "smoothed") -> list[Answer]:
        """The frames as the metrics see them."""
        if kind != "nearest_neighbour":
            return [_answer(frame, kind, self.config.independent) for frame in self.frames]
        return [
            Answer(
                _sequence(frame, self.config.independent),
                frame.record.stamp_ns,
                frame.record.T_map_cam,
                None if nearest is None else self.mapping_poses[nearest],
            )
            for frame, nearest in zip(self.frames, self.nearest, strict=True)
        ]

    def latency_ms(self) -> dict[str, Any]:
        """``p50``, ``p90`` and ``p99`` from the image to the answer, and by ``stages`` ``p50`` and ``p99``."""
        stages: dict[str, list[float]] = {}
        for frame in self.frames:
            for name, value in frame.output.timings_ms.items() if frame.output is not None else ():
                stages.setdefault(name, []).append(value)
        latencies = [f.latency_ms for f in self.frames if f.latency_ms is not None]
        return {
            **percentiles(latencies, 50, 90, 99),
            "stages": {name: percentiles(times, 50, 99) for name, times in stages.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """The one JSON object of ``localizer eval --json``."""
        neighbour = self.nearest_neighbour or Metrics()
        verdict = self.verdict
        return {
            "scene": str(self.scene.path),
            "source": str(self.source.path),
            "method": self.scene.method,
            "split": self.split,
            "ground_truth": self.source.ground_truth,
            "verdict": verdict.word,
            "verdict_reasons": list(verdict.reasons),
            "stamps": self.source.stamps,
            **self.metrics.to_dict(),
            "raw": self.raw.to_dict(),
            "nearest_neighbour": {
                "median_t_m": neighbour.median_t_m,
                "median_r_deg": neighbour.median_r_deg,
                "recall": neighbour.recall,
            },
            "odometry": {source: odometry.to_dict() for source, odometry in self.odometry.items()},
            "off_path": off_path_table(self.answers(), self.mapping_poses),
            "dropped": dict(Counter(f.dropped for f in self.frames if f.dropped)),
            "status": dict(Counter(f.output.status.value for f in self.frames if f.output is not None)),
            "latency_ms": self.latency_ms(),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "wall_s": round(self.wall_s, 2),
            "config": config_to_dict(self.config),
            "versions": self.versions,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text; never NaN or infinity, which are not JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def evaluate(
    opened: OpenScene,
    source: FrameSource,
    split: str = "test",
    *,
    limit: int | None = None,
    geometric: GeometricVo | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """The answers of a localizer to a part of a recording, and how good they are.

    A frame that cannot be read or that the localizer rejects is counted as dropped, and is a failure in the recalls.

    Args:
        opened: the scene with its localizer.
        source: the whole recording.
        split: part of it, ``all`` for everything.
        limit: at most this many frames, the first ones.
        geometric: to stand beside the scene's odometry; costs some 30 ms a frame, not part of the latency.
        progress: told of every frame.

    Raises:
        SourceError: no such split, or not one frame of it can be read.
        ConfigError: ``limit`` is not positive.
    """
    part = source.split(split)
    baseline = opened.baseline
    frames: list[FrameResult] = []
    nearest: list[int | None] = []
    seen: list[GeometricMotion | None] = []
    started = time.perf_counter()
    for result, frame in run_localizer(opened.localizer, part, limit=limit, stage="eval", progress=progress):
        if geometric is not None and frames and frames[-1].record.sequence != result.record.sequence:
            geometric.reset()
        nearest.append(None if baseline is None or frame is None else baseline.nearest(frame))
        moved: GeometricMotion | None = None
        if geometric is not None and frame is not None and result.output is not None:
            moved = geometric.observe(frame)
        seen.append(moved)
        frames.append(result)
    unreadable = [f for f in frames if f.dropped == UNREADABLE]
    if frames and len(unreadable) == len(frames):
        raise SourceError(unreadable[0].message)
    return Evaluation(
        scene=opened.scene,
        baseline=baseline,
        recording=source,
        source=part,
        split=split,
        config=opened.config,
        frames=frames,
        nearest=nearest,
        odometry=odometry_by_source(
            frames, [_answer(f, "raw", opened.config.independent) for f in frames], seen, part
        ),
        peak_rss_mb=peak_rss_mb(),
        wall_s=time.perf_counter() - started,
        versions=versions(),
    )


def _sequence(frame: FrameResult, alone: bool) -> str:
    """A frame that stands for itself is its own sequence: there is no motion to the next."""
    return frame.record.name if alone else frame.record.sequence


def _answer(frame: FrameResult, kind: Literal["smoothed", "raw"], alone: bool) -> Answer:
    record, output = frame.record, frame.output
    pose: PoseEstimate | None = None
    confidence: float | None = None
    if output is not None:
        pose = output.estimate if kind == "smoothed" else output.absolute
        # A fused pose has no confidence of its own: the frame's is that of its absolute answer.
        sure = [p.confidence for p in (pose, output.absolute) if p is not None and p.confidence is not None]
        confidence = sure[0] if sure else None
    return Answer(
        _sequence(frame, alone),
        record.stamp_ns,
        record.T_map_cam,
        pose.T_map_cam if pose is not None else None,
        pose.covariance if pose is not None else None,
        confidence,
    )
