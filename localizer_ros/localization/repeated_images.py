"""Images that show again what an earlier one has shown: they tell nothing new, whatever their stamps say.

A live sensor has noise, so two of its images are never the same. Images that are come from a driver that hangs, or from
a camera that stands still and has no noise: a simulated one, or a video stream that leaves out what has not changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localizer_ros.core.config.runtime import StatusConfig
from localizer_ros.core.types import Frame, PoseEstimate, RelativePose, UInt8
from localizer_ros.localization.motion_prediction import MotionPrediction
from localizer_ros.localization.status import Judgement, bounded, judge_repeated

# Pixels that differ between two images of a still camera, as a share. Noise of 0.2 grey levels, less than any sensor's,
# changes 7 % of the pixels of Red Kitchen and TUM, and 2.8 % when both images are compressed to JPEG of quality 20
# after it. Less may be a clock that somebody has written into a frozen image.
_SAME_SHARE = 0.01
# Cameras repeat an image now and then (Red Kitchen's every tenth, while it moves), or are published faster than they
# see. So short a time makes no pose wrong.
_HARMLESS_NS = 100_000_000
# Rows that are compared first, or pixels of them: a new image differs in any of them.
_ROWS = slice(None, None, 16)


@dataclass(frozen=True, slots=True)
class Repeated:
    """An image that tells nothing new.

    Attributes:
        since_ns: stamp of the first frame that had it.
        from_the_start: the camera has never shown another one: nothing proves that it sees anything.
    """

    since_ns: int
    from_the_start: bool


class RepeatedImages:
    """Knows since when the image of a camera has been the same."""

    def __init__(self) -> None:
        self._first: dict[str, Frame] = {}
        self._have_changed: set[str] = set()

    def repeated(self, frame: Frame) -> Repeated | None:
        """What is known of an image that has been there for too long to be harmless; None for one that counts.

        An image of one colour counts always: what is saturated has no noise, from a live camera either.
        """
        camera = "" if frame.mount is None else frame.mount.camera
        first = self._first.get(camera)
        differs = first is not None and not _same(first.image, frame.image)
        if differs:
            self._have_changed.add(camera)
        if first is None or differs or _blank(frame.image):
            self._first[camera] = frame
            return None
        if frame.stamp_ns - first.stamp_ns <= _HARMLESS_NS:
            return None
        return Repeated(first.stamp_ns, camera not in self._have_changed)

    def reset(self) -> None:
        """The next image of each camera is a new one; what the cameras have proved stands."""
        self._first.clear()


def _same(a: UInt8, b: UInt8) -> bool:
    return a.shape == b.shape and _changed(a[_ROWS], b[_ROWS]) < _SAME_SHARE and _changed(a, b) < _SAME_SHARE


def _changed(a: UInt8, b: UInt8) -> float:
    """Share of the pixels in which two images of one shape differ."""
    differs = a != b
    if not differs.any():
        return 0.0
    if differs.ndim == 3:
        # Not any(axis=2): it takes six times as long for three colours.
        differs = differs[..., 0] | differs[..., 1] | differs[..., 2]
    return float(np.count_nonzero(differs) / differs.size)


def _blank(image: UInt8) -> bool:
    some = image[_ROWS, _ROWS]
    return bool(np.all(some == image[0, 0])) and bool(np.all(image == image[0, 0]))


@dataclass(frozen=True, slots=True, eq=False)
class CarriedOver:
    """What there is to say of a frame whose image tells nothing new.

    Attributes:
        estimate: its pose, None when none was known before.
        judgement: what it is worth.
        accepted_ns: when a pose was accepted last; later by the time for which the camera has not moved.
        motions: external odometry's since the last frame that told something, where it has measured the way.
    """

    estimate: PoseEstimate | None
    judgement: Judgement
    accepted_ns: int | None
    motions: tuple[RelativePose, ...]


def carried_over(
    motion: MotionPrediction,
    frame: Frame,
    repeated: Repeated,
    accepted_ns: int | None,
    config: StatusConfig,
) -> CarriedOver:
    """What was known, moved to a frame whose image tells nothing new.

    Args:
        motion: from the last frame that told something; goes on to this one.
        frame: the frame.
        repeated: what is known of its image.
        accepted_ns: when a pose was accepted last, None when none was.
        config: thresholds.
    """
    new_ns, before_ns = motion.last_new_ns, motion.last_ns
    assert new_ns is not None and before_ns is not None
    passed = motion.pass_over(frame)
    moved = None if passed.odometry is None else passed.moved
    if accepted_ns is not None and moved is False:
        # For a camera that does not move no time passes: the last accepted pose is as good as it was.
        accepted_ns += frame.stamp_ns - before_ns
        new_ns = frame.stamp_ns
    estimate = motion.predict(motion.passed_motion(passed))
    if moved is None and estimate is not None and estimate.covariance is not None:
        estimate = bounded(estimate, config)
    stamps_ns = (frame.stamp_ns, new_ns, repeated.since_ns)
    judgement = judge_repeated(stamps_ns, accepted_ns, estimate, config, moved, repeated.from_the_start)
    return CarriedOver(
        estimate, judgement, accepted_ns, () if passed.odometry is None else (passed.odometry,)
    )
