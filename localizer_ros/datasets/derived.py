"""Recordings made of others: with poses from elsewhere (structure from motion, a SLAM), of another camera frame or
about another origin, with another camera, or their first frames only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from localizer_ros.core.camera_frames import CONVENTIONS, optical_in
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.core.types import Array, Camera, ConfigError, Frame, SourceError
from localizer_ros.core.words import did_you_mean
from localizer_ros.datasets.pose_coverage import MAX_GAP_NS, why_missing
from localizer_ros.datasets.robot_frames import given_camera, transforms_of
from localizer_ros.datasets.source import (
    FrameRecord,
    FrameSource,
    Stamps,
    broken_frames,
    camera_problem,
    frame_names,
    guessed_cameras,
    split_error,
)


class SomeFrames:
    """Some frames of a recording, with everything else that is known of it.

    Args:
        source: the recording.
        indices: of the frames, ascending.
        records: what is known of each.
    """

    def __init__(self, source: FrameSource, indices: Sequence[int], records: Sequence[FrameRecord]) -> None:
        self._source, self._indices = source, indices
        self.records: Sequence[FrameRecord] = records
        self.path: Path = source.path
        self.format, self.camera, self.ground_truth = source.format, source.camera, source.ground_truth
        self.stamps: Stamps = source.stamps
        self.odometry: Trajectory | None = source.odometry
        self.T_base_cam: SE3 | None = source.T_base_cam
        self.splits: Sequence[str] = source.splits
        self.frames = frame_names(source)
        self.transforms: TransformTree | None = transforms_of(source)
        self.T_given_cam: SE3 = given_camera(source)
        self.details: dict[str, Any] = getattr(source, "details", {})
        self.problems: Sequence[str] = getattr(source, "problems", ())
        self.pose_problem: str | None = getattr(source, "pose_problem", None)
        self.camera_problem = camera_problem(source)
        self.guessed_cameras = dict(guessed_cameras(source))
        self.broken: Mapping[str, str] = broken_frames(source)
        self.keyframe_names = keyframe_names(source)

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        return self._source.read(self._indices[index])


class ReadableFrames(SomeFrames):
    """The frames of a recording whose images can be used; a ``FrameSource``."""

    def __init__(self, source: FrameSource) -> None:
        broken = broken_frames(source)
        kept = [i for i, record in enumerate(source.records) if record.name not in broken]
        super().__init__(source, kept, [source.records[i] for i in kept])
        self.broken = {}

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return readable(self._source.split(name))


def readable(source: FrameSource) -> FrameSource:
    """A recording without its broken frames; itself where it has none."""
    return ReadableFrames(source) if broken_frames(source) else source


class SourceWithPoses(SomeFrames):
    """The frames of a recording that a trajectory covers, with its poses; a ``FrameSource``.

    Args:
        source: the recording; its own poses are not looked at.
        trajectory: ``T_map_cam`` by the recording's stamps; interpolated between its poses.
        ground_truth: what the poses are, for reports.

    Raises:
        SourceError: the trajectory covers no frame.
    """

    def __init__(self, source: FrameSource, trajectory: Trajectory, ground_truth: str) -> None:
        stamps = [record.stamp_ns for record in source.records]
        found = [(i, r, trajectory.at(r.stamp_ns, MAX_GAP_NS)) for i, r in enumerate(source.records)]
        covered = [(i, FrameRecord(r.name, r.sequence, r.stamp_ns, T)) for i, r, T in found if T is not None]
        if not covered:
            why = why_missing(ground_truth, trajectory.stamps_ns, stamps, len(stamps))
            raise SourceError(f"{source.path}: the trajectory covers none of its {len(stamps)} frames: {why}")
        super().__init__(source, [i for i, _ in covered], [record for _, record in covered])
        self.ground_truth = ground_truth
        # What was wrong with the recording's own poses does not matter any more.
        self.pose_problem = None
        missing = len(found) - len(covered)
        why = why_missing(ground_truth, trajectory.stamps_ns, stamps, missing)
        self.problems = [*self.problems, *([f"{why}: left out"] if why else [])]
        self._trajectory = trajectory

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return SourceWithPoses(self._source.split(name), self._trajectory, self.ground_truth)


class PosedSource(SomeFrames):
    """All frames of a recording, with poses that were found for them; a ``FrameSource``.

    Args:
        source: the recording; its own poses are not looked at.
        poses: ``T_map_cam`` of each of its frames, None where none was found.
        ground_truth: what the poses are, for reports.
        keyframes: names of the frames that the others' poses were found by; a map is made of these.
    """

    def __init__(
        self,
        source: FrameSource,
        poses: Sequence[SE3 | None],
        ground_truth: str,
        keyframes: Sequence[str] | None = None,
    ) -> None:
        records = [replace(r, T_map_cam=T) for r, T in zip(source.records, poses, strict=True)]
        super().__init__(source, range(len(records)), records)
        self.ground_truth = ground_truth
        self.pose_problem = None
        self.keyframe_names = None if keyframes is None else tuple(keyframes)

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``; the part that the poses were found for is all there is."""
        if name != "all":
            raise split_error(self.path, name, ())
        return self


def keyframe_names(source: FrameSource) -> tuple[str, ...] | None:
    """Names of the frames that a recording's poses were found by; None where they came with it."""
    names = getattr(source, "keyframe_names", None)
    return names if isinstance(names, tuple) else None


class ShiftedSource(SomeFrames):
    """A recording whose map frame has another origin; a ``FrameSource``.

    Args:
        source: the recording.
        origin_m: (3,) the new origin in the recording's map frame; axes stay.
    """

    def __init__(self, source: FrameSource, origin_m: Array) -> None:
        records = [
            replace(r, T_map_cam=None if r.T_map_cam is None else r.T_map_cam.shifted(-origin_m))
            for r in source.records
        ]
        super().__init__(source, range(len(records)), records)
        self._origin_m = origin_m

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return ShiftedSource(self._source.split(name), self._origin_m)


class FirstFrames(SomeFrames):
    """The first frames of a recording; a ``FrameSource``.

    Args:
        source: the recording.
        count: at most this many.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        records = source.records[:count]
        super().__init__(source, range(len(records)), records)
        self._count = count

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``; the first frames of that part."""
        return FirstFrames(self._source.split(name), self._count)


class TurnedSource(SomeFrames):
    """A recording whose poses are of a camera frame that is not optical; a ``FrameSource`` with those of the optical
    one.

    Args:
        source: the recording.
        convention: of its camera frame, a key of ``CONVENTIONS``.
    """

    def __init__(self, source: FrameSource, convention: str) -> None:
        self._T_given_optical = optical_in(convention)
        records = [
            replace(r, T_map_cam=None if r.T_map_cam is None else r.T_map_cam @ self._T_given_optical)
            for r in source.records
        ]
        super().__init__(source, range(len(records)), records)
        self._convention = convention
        self.T_base_cam = self._turned(source.T_base_cam)
        self.T_given_cam = given_camera(source) @ self._T_given_optical
        self.details = {**self.details, "camera_convention": convention}

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        frame = self._source.read(index)
        return replace(frame, T_base_cam=self._turned(frame.T_base_cam))

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return TurnedSource(self._source.split(name), self._convention)

    def _turned(self, T_base_given: SE3 | None) -> SE3 | None:
        return None if T_base_given is None else T_base_given @ self._T_given_optical


def turned(source: FrameSource, convention: str) -> FrameSource:
    """A recording with poses of the optical frame, where they are given of a camera frame of this convention.

    Raises:
        ConfigError: an unknown convention.
    """
    if convention not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise ConfigError(
            f"--camera-convention: expected {known}, got {convention!r}{did_you_mean(convention, CONVENTIONS)}"
        )
    return source if convention == "optical" else TurnedSource(source, convention)


class SourceWithCamera(SomeFrames):
    """A recording with a camera for the frames whose own is not known; a ``FrameSource``.

    Args:
        source: the recording.
        camera: of its images.

    Raises:
        SourceError: these images have another size.
    """

    def __init__(self, source: FrameSource, camera: Camera) -> None:
        super().__init__(source, range(len(source.records)), source.records)
        self._unknown, self._given = frozenset(self.guessed_cameras), camera
        for guess in self.guessed_cameras.values():
            if (camera.width_px, camera.height_px) != (guess.width_px, guess.height_px):
                raise SourceError(
                    f"{source.path}: images are {guess.width_px}x{guess.height_px}, the camera is of "
                    f"{camera.width_px}x{camera.height_px}"
                )
        self.camera = camera if source.records[0].name in self._unknown else source.camera
        self.camera_problem, self.guessed_cameras = None, {}

    def read(self, index: int) -> Frame:
        """See ``FrameSource``."""
        frame = self._source.read(index)
        return replace(frame, camera=self._given) if frame.name in self._unknown else frame

    def split(self, name: str) -> FrameSource:
        """See ``FrameSource``."""
        return SourceWithCamera(self._source.split(name), self._given)
