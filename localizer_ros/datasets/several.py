"""Several recordings as one, each a sequence or more: days, drives, parts of a place.

Their poses are taken to be of one map frame. Times go on where they do; a recording whose times overlap with those of
another is moved behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from localizer_ros.core.files import natural_key
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.invented_times import BETWEEN_SEQUENCES_NS
from localizer_ros.datasets.source import (
    FrameRecord,
    FrameSource,
    Stamps,
    broken_frames,
    camera_problem,
    check_order,
    frame_names,
    guessed_cameras,
    open_source,
    recognise,
    recordings_in,
    split_error,
)


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
        self.T_base_cam, place_problem = _common_extrinsics(sources, labels)
        self.splits: Sequence[str] = tuple(dict.fromkeys(s for source in sources for s in source.splits))
        self.broken = {
            f"{label}/{name}": why
            for source, label in zip(sources, labels, strict=True)
            for name, why in broken_frames(source).items()
        }
        self.camera_problem = next(filter(None, map(camera_problem, sources)), None)
        self.guessed_cameras = {
            f"{label}/{name}": camera
            for source, label in zip(sources, labels, strict=True)
            for name, camera in guessed_cameras(source).items()
        }
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
        if self.odometry is not None:
            without = [label for s, label in zip(sources, labels, strict=True) if s.odometry is None]
            self.problems += [f"{label}: has no odometry, others have" for label in without]
        self.problems += place_problem
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


def open_recording(
    path: Path, topics: Mapping[str, str] | None = None, progress: Progress = no_progress
) -> JoinedSource:
    """Open a folder of recordings.

    Args:
        path: the folder.
        topics: what to use where they have several, see :func:`open_chosen`.
        progress: told how far those are that take a while to open.

    Raises:
        SourceError: none there, a damaged one, or one that has not what was chosen.
    """
    found = recordings_in(path)
    if not found:
        raise SourceError(f"{path}: holds no recordings")
    opened = [open_chosen(each, recognise(each), topics or {}, progress) for each in found]
    return JoinedSource(opened, path)


def open_chosen(
    path: Path, format: str | None, chosen: Mapping[str, str], progress: Progress = no_progress
) -> FrameSource:
    """A recording of any format, with the topics and the camera that were chosen.

    Args:
        path: folder or file.
        format: a key of ``FORMATS``; None recognises it.
        chosen: name by purpose: ``camera`` of any format, the others of a bag; see ``rosbag.open_recording``.
        progress: told how far it is, where opening takes a while.

    Raises:
        SourceError: as of ``open_source``, or a choice that means nothing for this recording.
    """
    if format is None and path.exists():
        format = recognise(path)
    options: dict[str, object] = {"progress": progress} if format in ("video", "several") else {}
    if format in ("rosbag", "several"):
        return open_source(path, format, topics=chosen, **options)
    if unknown := [purpose for purpose in chosen if purpose != "camera"]:
        raise SourceError(
            f"{path}: not a bag, so --topic {unknown[0]}=... means nothing; a camera is chosen by --topic camera=NAME"
        )
    return open_source(path, format, **chosen, **options)


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
        shift = 0 if end_ns is None or first_ns > end_ns else end_ns + BETWEEN_SEQUENCES_NS - first_ns
        shifts.append(shift)
        end_ns = last_ns + shift
    return shifts


def _joined_odometry(sources: Sequence[FrameSource], shifts: Sequence[int]) -> Trajectory | None:
    """The odometry of the recordings that have one; each begins anew."""
    parts = [(s.odometry, shift) for s, shift in zip(sources, shifts, strict=True) if s.odometry is not None]
    if not parts:
        return None
    stamps = np.concatenate([part.stamps_ns + shift for part, shift in parts])
    poses = [T for part, _ in parts for T in part.poses]
    known = [part.covariances for part, _ in parts if part.covariances is not None]
    # Of one end and one beginning that overlap, the first counts.
    stamps, first = np.unique(stamps, return_index=True)
    return Trajectory(
        stamps,
        tuple(poses[i] for i in first),
        np.concatenate(known)[first] if len(known) == len(parts) else None,
    )


def _common_extrinsics(sources: Sequence[FrameSource], labels: Sequence[str]) -> tuple[SE3 | None, list[str]]:
    """Where the camera sits on the robot, if all recordings say the same; else why that is not known."""
    known = {
        label: s.T_base_cam for s, label in zip(sources, labels, strict=True) if s.T_base_cam is not None
    }
    if not known:
        return None, []
    first = next(iter(known.values()))
    if others := [
        label for label, T in known.items() if not np.allclose(T.matrix(), first.matrix(), atol=1e-9)
    ]:
        return None, [
            f"{others[0]}: the camera sits elsewhere on the robot than in {next(iter(known))}: unknown"
        ]
    if missing := [label for label in labels if label not in known]:
        return None, [
            f"{missing[0]}: does not tell where the camera sits on the robot, so it is not known of any"
        ]
    return first, []


def _named(ground_truths: Any) -> str:
    return ", ".join(sorted(dict.fromkeys(ground_truths), key=natural_key))
