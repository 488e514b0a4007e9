"""Several recordings as one, each a sequence or more: days, drives, parts of a place.

Their poses are taken to be of one map frame. Times go on where they do; a recording whose times overlap with those of
another is moved behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from localizer_ros.core.files import natural_key
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.source import (
    FrameRecord,
    FrameSource,
    Stamps,
    broken_frames,
    camera_problem,
    check_order,
    frame_names,
    open_source,
    recognise,
    recordings_in,
    split_error,
)

# Behind the recording before, where times overlap.
_GAP_NS = 1_000_000_000_000


class JoinedSource:
    """Several recordings as one; a ``FrameSource``.

    Args:
        sources: the recordings, at least one.
        path: what they are called together; the folder that they lie in where there is none.

    Raises:
        SourceError: none at all.
    """

    def __init__(self, sources: Sequence[FrameSource], path: Path | None = None) -> None:
        if not sources:
            raise SourceError("expected at least one recording")
        self._label = dict(zip(map(id, sources), _labels([s.path for s in sources]), strict=True))
        if all(source.stamps == "recorded" for source in sources):
            sources = sorted(sources, key=lambda source: source.records[0].stamp_ns)
        labels = [self._label[id(source)] for source in sources]
        self._join(sources, labels, _shifts(sources), path or sources[0].path.parent)

    def _join(
        self, sources: Sequence[FrameSource], labels: Sequence[str], shifts: Sequence[int], path: Path
    ) -> None:
        first = sources[0]
        self._sources, self._labels, self._shifts = list(sources), list(labels), list(shifts)
        self.path, self.format = path, "several"
        self.camera, self.frames = first.camera, frame_names(first)
        self.ground_truth = _named(source.ground_truth for source in sources)
        self.stamps: Stamps = (
            "recorded" if all(source.stamps == "recorded" for source in sources) else "invented"
        )
        self.records: Sequence[FrameRecord] = [
            replace(
                record,
                name=f"{label}/{record.name}",
                sequence=f"{label}/{record.sequence}",
                stamp_ns=record.stamp_ns + shift,
            )
            for source, label, shift in zip(sources, labels, shifts, strict=True)
            for record in source.records
        ]
        check_order(path, self.records)
        self._place = [(n, i) for n, source in enumerate(sources) for i in range(len(source.records))]
        self.odometry = _joined_odometry(sources, shifts)
        extrinsics = [source.T_base_cam for source in sources]
        same = extrinsics[0] is not None and all(
            T is not None and T.matrix().tolist() == extrinsics[0].matrix().tolist() for T in extrinsics
        )
        self.T_base_cam = extrinsics[0] if same else None
        self.splits: Sequence[str] = tuple(dict.fromkeys(s for source in sources for s in source.splits))
        self.broken = {
            f"{label}/{name}": why
            for source, label in zip(sources, labels, strict=True)
            for name, why in broken_frames(source).items()
        }
        self.camera_problem = next(filter(None, map(camera_problem, sources)), None)
        self.problems = [
            f"{label}: {line}"
            for source, label in zip(sources, labels, strict=True)
            for line in getattr(source, "problems", ())
        ]
        self.problems += [
            f"{label}: times overlap with those of another recording: moved behind it"
            for label, shift in zip(labels, shifts, strict=True)
            if shift and self.stamps == "recorded"
        ]
        self.details: dict[str, Any] = {
            "recordings": {label: source.format for source, label in zip(sources, labels, strict=True)}
        }

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        n, i = self._place[index]
        record = self.records[index]
        return replace(self._sources[n].read(i), stamp_ns=record.stamp_ns, name=record.name)

    def split(self, name: str) -> JoinedSource:
        """See ``FrameSource.split``; the part of that name of every recording that has one."""
        if name == "all":
            return self
        if name not in self.splits:
            raise split_error(self.path, name, self.splits)
        kept = [n for n, source in enumerate(self._sources) if name in source.splits]
        part = object.__new__(JoinedSource)
        part._join(
            [self._sources[n].split(name) for n in kept],
            [self._labels[n] for n in kept],
            [self._shifts[n] for n in kept],
            self.path,
        )
        part.splits = ()
        return part


def open_recording(path: Path) -> JoinedSource:
    """Open a folder of recordings. Raises SourceError."""
    found = recordings_in(path)
    if not found:
        raise SourceError(f"{path}: holds no recordings")
    return JoinedSource([open_source(each, recognise(each)) for each in found], path)


def _labels(paths: Sequence[Path]) -> list[str]:
    """A name for each recording, none twice."""
    labels: list[str] = []
    for path in paths:
        plain = label = path.resolve().stem if path.is_file() else path.resolve().name
        number = 2
        while label in labels:
            label, number = f"{plain}-{number}", number + 1
        labels.append(label)
    return labels


def _shifts(sources: Sequence[FrameSource]) -> list[int]:
    """What is added to the stamps of each recording, so that they increase over all."""
    shifts, end_ns = [], None
    for source in sources:
        first_ns, last_ns = source.records[0].stamp_ns, source.records[-1].stamp_ns
        shift = 0 if end_ns is None or first_ns > end_ns else end_ns + _GAP_NS - first_ns
        shifts.append(shift)
        end_ns = last_ns + shift
    return shifts


def _joined_odometry(sources: Sequence[FrameSource], shifts: Sequence[int]) -> Trajectory | None:
    """One odometry where every recording has its own; each begins anew."""
    parts = [source.odometry for source in sources]
    items = []
    for part, shift in zip(parts, shifts, strict=True):
        if part is None:
            return None
        items += [(stamp + shift, T) for stamp, T in zip(part.stamps_ns.tolist(), part.poses, strict=True)]
    return Trajectory.from_items(items)


def _named(ground_truths: Any) -> str:
    return ", ".join(sorted(dict.fromkeys(ground_truths), key=natural_key))
