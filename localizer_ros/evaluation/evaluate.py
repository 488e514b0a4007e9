"""Run the localizer over a recording as the node would, and measure the answers.

One pass gives the smoothed answers, the raw answers of the network, and the nearest-neighbour baseline; and beside
them odometry by itself: the motions that were measured, added up.
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import (
    ConfigError,
    Frame,
    FrameRejected,
    LocalizerOutput,
    PoseEstimate,
    SourceError,
)
from localizer_ros.datasets.source import FrameRecord, FrameSource
from localizer_ros.evaluation.geometric_vo import GeometricMotion, GeometricVo
from localizer_ros.evaluation.metrics import (
    Answer,
    Metrics,
    Motion,
    OdometryMetrics,
    compute_metrics,
    compute_odometry,
    nees,
    off_path_table,
    percentiles,
)
from localizer_ros.scene.bundle import Scene, library_versions

Array = NDArray[np.float64]
Kind = Literal["smoothed", "raw", "nearest_neighbour"]


class FrameLocalizer(Protocol):
    """What evaluation and replay need of ``localization.Localizer``."""

    def process(self, frame: Frame) -> LocalizerOutput:
        """The answer to one frame. Raises FrameRejected."""
        ...

    def add_odometry(self, stamp_ns: int, T_odom_base: SE3) -> None:
        """A pose of the external odometry."""
        ...

    def reset(self) -> None:
        """Forget all past frames."""
        ...


class Baseline(Protocol):
    """What evaluation needs of ``localization.baseline.NearestNeighbour``."""

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
class FrameResult:
    """What became of one frame.

    Attributes:
        index: of the frame in the evaluated part of the source.
        record: name, sequence, stamp and ground truth.
        output: the answer, None when the frame was dropped.
        dropped: short kind of the reason for which it was dropped, empty when it was not.
        message: the reason in words.
        latency_ms: wall time of ``Localizer.process``, reading the image not included; None when dropped.
        nearest: index of the mapping image that looks most alike, None without a baseline.
        geometric: motion since its last key frame by geometric visual odometry, None without it.
    """

    index: int
    record: FrameRecord
    output: LocalizerOutput | None
    dropped: str = ""
    message: str = ""
    latency_ms: float | None = None
    nearest: int | None = None
    geometric: GeometricMotion | None = None


@dataclass(frozen=True, slots=True, eq=False)
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
        metrics: of the answers of the localizer (``output.estimate``).
        raw: of the absolute answers before gating and smoothing (``output.absolute``).
        nearest_neighbour: of the pose of the mapping image that looks most alike; None without a baseline.
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
    metrics: Metrics
    raw: Metrics
    nearest_neighbour: Metrics | None
    odometry: dict[str, OdometryMetrics]
    peak_rss_mb: float
    wall_s: float
    versions: dict[str, str]

    @property
    def mapping_poses(self) -> Sequence[SE3]:
        """Poses ``T_map_cam`` of the mapping images; empty when the scene does not have them."""
        return self.baseline.poses if self.baseline is not None else ()

    def answers(self, kind: Kind = "smoothed") -> list[Answer]:
        """The frames as the metrics see them."""
        return _answers(self.frames, kind, self.mapping_poses)

    def to_dict(self) -> dict[str, Any]:
        """The one JSON object of ``localizer eval --json``."""
        done = [f.output for f in self.frames if f.output is not None]
        stages: dict[str, list[float]] = {}
        for output in done:
            for name, value in output.timings_ms.items():
                stages.setdefault(name, []).append(value)
        latencies = [f.latency_ms for f in self.frames if f.latency_ms is not None]
        neighbour = self.nearest_neighbour or Metrics()
        values = self.metrics.to_dict()
        return {
            "scene": str(self.scene.path),
            "source": str(self.source.path),
            "method": self.scene.method,
            "split": self.split,
            "ground_truth": self.source.ground_truth,
            **values,
            "raw": self.raw.to_dict(),
            "nearest_neighbour": {
                "median_t_m": neighbour.median_t_m,
                "median_r_deg": neighbour.median_r_deg,
                "recall": neighbour.recall,
            },
            "odometry": {source: odometry.to_dict() for source, odometry in self.odometry.items()},
            "off_path": off_path_table(self.answers(), self.mapping_poses),
            "dropped": dict(Counter(f.dropped for f in self.frames if f.dropped)),
            "status": dict(Counter(output.status.value for output in done)),
            "latency_ms": {
                **percentiles(latencies, 50, 90, 99),
                "stages": {name: percentiles(times, 50, 99) for name, times in stages.items()},
            },
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "wall_s": round(self.wall_s, 2),
            "config": config_to_dict(self.config),
            "versions": self.versions,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text; never NaN or infinity, which are not JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def frames_csv(self) -> str:
        """One line a frame: truth, answers, errors. Poses are ``T_map_cam``: metres and xyzw quaternions."""
        text = io.StringIO()
        writer = csv.DictWriter(text, FRAME_COLUMNS, lineterminator="\n")
        writer.writeheader()
        baseline = self.baseline
        for frame, smoothed, raw in zip(self.frames, self.answers(), self.answers("raw"), strict=True):
            sigma_m, sigma_deg = sigmas(smoothed.covariance)
            row: dict[str, Any] = {
                "name": frame.record.name,
                "sequence": frame.record.sequence,
                "stamp_ns": frame.record.stamp_ns,
                "status": frame.output.status.value if frame.output is not None else "",
                "dropped": frame.dropped,
                "reason": frame.output.reason if frame.output is not None else frame.message,
                "latency_ms": _text(frame.latency_ms),
                "nearest_mapping_image": (
                    baseline.names[frame.nearest]
                    if baseline is not None and frame.nearest is not None
                    else ""
                ),
                "error_m": _text(smoothed.error_m),
                "error_deg": _text(smoothed.error_deg),
                "raw_error_m": _text(raw.error_m),
                "raw_error_deg": _text(raw.error_deg),
                "sigma_m": _text(sigma_m),
                "sigma_deg": _text(sigma_deg),
                "nees": _text(nees(smoothed)),
            }
            for prefix, T in (
                ("true", smoothed.T_map_true),
                ("estimate", smoothed.T_map_cam),
                ("raw", raw.T_map_cam),
            ):
                if T is not None:
                    values = (*T.t, *T.quaternion_xyzw())
                    row |= {f"{prefix}_{c}": f"{v:.9f}" for c, v in zip(_POSE, values, strict=True)}
            writer.writerow(row)
        return text.getvalue()


_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
FRAME_COLUMNS = (
    *("name", "sequence", "stamp_ns", "status", "dropped", "reason", "latency_ms", "nearest_mapping_image"),
    *("error_m", "error_deg", "raw_error_m", "raw_error_deg", "sigma_m", "sigma_deg", "nees"),
    *(f"{prefix}_{c}" for prefix in ("true", "estimate", "raw") for c in _POSE),
)
"""Columns of :meth:`Evaluation.frames_csv`."""


def evaluate(
    localizer: FrameLocalizer,
    scene: Scene,
    source: FrameSource,
    split: str = "test",
    *,
    config: LocalizerConfig | None = None,
    limit: int | None = None,
    baseline: Baseline | None = None,
    geometric: GeometricVo | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Run a part of a recording through the localizer and measure the answers.

    Frames run in order of time; the localizer is reset between sequences, so that none is bridged. A frame
    that cannot be read or that the localizer rejects is counted as dropped, and is a failure in the recalls.

    Args:
        localizer: freshly opened, for ``scene``.
        scene: that ``localizer`` was opened for.
        source: the whole recording.
        split: part of it, ``all`` for everything.
        config: that ``localizer`` was opened with; goes into the result.
        limit: at most this many frames, the first ones.
        baseline: to stand beside the result; costs a network call a frame, which is not part of the latency.
        geometric: to stand beside the scene's odometry; costs some 30 ms a frame, not part of the latency either.
        progress: told of every frame.

    Raises:
        SourceError: no such split, or not one frame of it can be read.
        ConfigError: ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: expected at least 1, got {limit}")
    part = source.split(split)
    total = len(part.records) if limit is None else min(limit, len(part.records))
    odometry = OdometryFeed(part)
    frames: list[FrameResult] = []
    started = time.perf_counter()
    sequence: str | None = None
    for index, record in enumerate(part.records[:total]):
        if sequence is not None and record.sequence != sequence:
            localizer.reset()
            if geometric is not None:
                geometric.reset()
        sequence = record.sequence
        odometry.feed(localizer, record.stamp_ns)
        frames.append(_run(localizer, baseline, geometric, part, index, record))
        progress("eval", index + 1, total)
    unreadable = [f for f in frames if f.dropped == "unreadable"]
    if frames and len(unreadable) == len(frames):
        raise SourceError(unreadable[0].message)
    poses = baseline.poses if baseline is not None else ()
    return Evaluation(
        scene=scene,
        baseline=baseline,
        recording=source,
        source=part,
        split=split,
        config=config if config is not None else LocalizerConfig(),
        frames=frames,
        metrics=compute_metrics(_answers(frames, "smoothed", poses)),
        raw=compute_metrics(_answers(frames, "raw", poses)),
        nearest_neighbour=(
            compute_metrics(_answers(frames, "nearest_neighbour", poses)) if baseline is not None else None
        ),
        odometry=_odometry(frames, part),
        peak_rss_mb=peak_rss_mb(),
        wall_s=time.perf_counter() - started,
        versions=versions(),
    )


def sigmas(covariance: Array | None) -> tuple[float | None, float | None]:
    """Standard deviation in the most uncertain direction: position (m) and rotation (deg).

    Args:
        covariance: (6, 6), rotation first; None gives None twice.
    """
    if covariance is None:
        return None, None
    rotation = math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance[:3, :3])[-1])))
    translation = math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance[3:, 3:])[-1])))
    return translation, math.degrees(rotation)


def peak_rss_mb() -> float:
    """Largest resident memory this process ever had, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / 1024 / 1024 if sys.platform == "darwin" else peak / 1024


def versions() -> dict[str, str]:
    """Versions of this package, Python and what the answers depend on."""
    return {"python": platform.python_version(), **library_versions()}


class OdometryFeed:
    """Gives a localizer the external odometry up to a time, each pose once.

    Args:
        source: the part of a recording that is run.
    """

    def __init__(self, source: FrameSource) -> None:
        self._trajectory = source.odometry
        self._next = 0
        records = source.records
        if self._trajectory is not None and records:
            # A split that begins late in the recording must not be fed minutes of motion it does not use.
            begin = records[0].stamp_ns - 1_000_000_000
            self._next = int(np.searchsorted(self._trajectory.stamps_ns, begin))

    def feed(self, localizer: FrameLocalizer, stamp_ns: int) -> None:
        """Everything up to and including ``stamp_ns``: what a live robot could have received."""
        trajectory = self._trajectory
        if trajectory is None:
            return
        while self._next < len(trajectory) and int(trajectory.stamps_ns[self._next]) <= stamp_ns:
            localizer.add_odometry(int(trajectory.stamps_ns[self._next]), trajectory.poses[self._next])
            self._next += 1


def _run(
    localizer: FrameLocalizer,
    baseline: Baseline | None,
    geometric: GeometricVo | None,
    source: FrameSource,
    index: int,
    record: FrameRecord,
) -> FrameResult:
    try:
        frame = source.read(index)
    except FrameRejected as error:
        return FrameResult(index, record, None, error.kind, str(error))
    except SourceError as error:
        return FrameResult(index, record, None, "unreadable", str(error))
    nearest = None
    if baseline is not None:
        nearest = baseline.nearest(frame)
    began = time.perf_counter()
    try:
        output = localizer.process(frame)
    except FrameRejected as error:
        return FrameResult(index, record, None, error.kind, str(error), nearest=nearest)
    latency_ms = (time.perf_counter() - began) * 1e3
    moved = geometric.observe(frame) if geometric is not None else None
    return FrameResult(index, record, output, latency_ms=latency_ms, nearest=nearest, geometric=moved)


def _odometry(frames: Sequence[FrameResult], source: FrameSource) -> dict[str, OdometryMetrics]:
    """Motions by what measured them; dropped frames are no part of it, motions bridge them."""
    done = [f for f in frames if f.output is not None]
    raw = _answers(done, "raw", ())
    measured = [
        {m.source: Motion(m.stamp_prev_ns, m.stamp_cur_ns, m.T_prev_cur, m.covariance) for m in motions}
        for motions in (f.output.motions if f.output is not None else () for f in done)
    ]
    found = {
        name: compute_odometry(raw, [motions.get(name) for motions in measured])
        for name in dict.fromkeys(name for motions in measured for name in motions)
    }
    if any(f.geometric is not None for f in done):
        path, lengths = _path(source)
        motions = [None if f.geometric is None else _in_metres(f.geometric, path) for f in done]
        found["geometric"] = compute_odometry(raw, motions, lengths)
    return found


def _in_metres(motion: GeometricMotion, path: Callable[[int], SE3 | None]) -> Motion | None:
    """A motion with the length that ``path`` gives it, None where it gives none."""
    key, cur = path(motion.stamp_key_ns), path(motion.stamp_cur_ns)
    if key is None or cur is None:
        return None
    return Motion(motion.stamp_key_ns, motion.stamp_cur_ns, motion.scaled(key.distance_to(cur)))


def _path(source: FrameSource) -> tuple[Callable[[int], SE3 | None], str]:
    """The camera's path that gives directions their lengths, and what it is: external odometry where there is one,
    else the ground truth, which flatters them."""
    odometry, T_base_cam = source.odometry, source.T_base_cam
    if odometry is not None and T_base_cam is not None:

        def at(stamp_ns: int) -> SE3 | None:
            T_odom_base = odometry.at(stamp_ns)
            return None if T_odom_base is None else T_odom_base @ T_base_cam

        return at, "odometry"
    return {record.stamp_ns: record.T_map_cam for record in source.records}.get, "ground truth"


def _answers(frames: Sequence[FrameResult], kind: Kind, mapping_poses: Sequence[SE3]) -> list[Answer]:
    def each() -> Iterator[Answer]:
        for frame in frames:
            record = frame.record
            pose: PoseEstimate | None = None
            if frame.output is not None and kind != "nearest_neighbour":
                pose = frame.output.estimate if kind == "smoothed" else frame.output.absolute
            T_map_cam = pose.T_map_cam if pose is not None else None
            if kind == "nearest_neighbour" and frame.nearest is not None:
                T_map_cam = mapping_poses[frame.nearest]
            yield Answer(
                record.sequence,
                record.stamp_ns,
                record.T_map_cam,
                T_map_cam,
                pose.covariance if pose is not None else None,
            )

    return list(each())


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
