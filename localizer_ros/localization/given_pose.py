"""A pose that somebody gave: where to look first, and the start only where the camera says nothing."""

from __future__ import annotations

import enum

from localizer_ros.core.types import PoseEstimate, RelativePose
from localizer_ros.localization.gate import AnswerOutcome, Gate
from localizer_ros.localization.motion_prediction import MotionPrediction, moved


class Choice(enum.Enum):
    """What becomes of a given pose with a frame."""

    WAIT = "nothing was seen yet"
    START = "it is where the graph starts"
    DROP = "the camera sees another place"


class GivenPose:
    """A pose that somebody gave, kept until the camera has confirmed or refuted it.

    People point beside the place, and at the wrong one: what is given costs no wrong pose while the camera can tell.
    Where it tells nothing for a while, it is the best there is.

    Args:
        pose: in the front end's coordinates, of the next frame.
        wait_s: how long the camera may say nothing.
    """

    def __init__(self, pose: PoseEstimate, wait_s: float) -> None:
        self._pose, self._wait_ns = pose, round(wait_s * 1e9)
        self._first_ns: int | None = None

    def predict(self, stamp_ns: int, motion: RelativePose | None) -> PoseEstimate:
        """The pose at a frame: as it was given for the first, moved for those after it."""
        if self._first_ns is not None and motion is not None and motion.stamp_prev_ns == self._pose.stamp_ns:
            return moved(self._pose, motion)
        return PoseEstimate(stamp_ns, self._pose.T_map_cam, self._pose.covariance, self._pose.source)

    def weigh(self, predicted: PoseEstimate, seen: list[PoseEstimate], gate: Gate) -> Choice:
        """What becomes of it.

        Args:
            predicted: the given pose at the newest frame.
            seen: the camera's answers, of that frame or moved to it, the newest last.
            gate: compares the two.
        """
        if seen:
            return Choice.START if gate.believes(seen[-1], predicted) else Choice.DROP
        self._first_ns = predicted.stamp_ns if self._first_ns is None else self._first_ns
        self._pose = predicted
        return Choice.START if predicted.stamp_ns - self._first_ns >= self._wait_ns else Choice.WAIT


def settle(
    given: GivenPose | None,
    predicted: PoseEstimate | None,
    answers: list[PoseEstimate],
    motion: MotionPrediction,
    gate: Gate,
) -> tuple[GivenPose | None, list[PoseEstimate], list[AnswerOutcome]]:
    """What is left of a given pose with a frame: itself where it waits, the pose to start from, and that it is dropped.

    Args:
        given: the pose, None when there is none.
        predicted: the same at the newest frame.
        answers: of the camera, for this and earlier frames.
        motion: brings earlier ones forward.
        gate: compares them.
    """
    if given is None or predicted is None:
        return None, [], []
    seen = [motion.bring_forward(answer, predicted.stamp_ns) for answer in answers]
    choice = given.weigh(predicted, [pose for pose in seen if pose is not None], gate)
    start = [predicted] if choice is Choice.START else []
    refuted = [AnswerOutcome.REFUTED] if choice is Choice.DROP else []
    return given if choice is Choice.WAIT else None, start, refuted
