"""What every localization method gives the pipeline for a frame: a pose, a motion, or a reason for neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from localizer_ros.core.seen import SeenPoints
from localizer_ros.core.types import Frame, PoseEstimate, RelativePose

TRACKING = "tracking"
"""Source of poses and motions by points of the map that are followed from frame to frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What a front end saw in one frame.

    Attributes:
        absolute: pose of this frame, None when there is none.
        late: poses of earlier frames that have only now been computed, with their own stamps.
        relative: motion since the frame observed before, None when unknown.
        reason: why there is no absolute pose, or no late one where one was due; empty otherwise.
        timings_ms: wall time of each stage, in order.
        beside_ms: wall time of what ran beside the frames and whose result has come with this one.
        out_of_distribution: see ``LocalizerOutput``.
        seen: keypoints and matches, for those who look at the frame; None for methods without points.
        elsewhere: the image shows another place than the prior says, of which there is no pose sure enough to be told.
    """

    absolute: PoseEstimate | None = None
    late: tuple[PoseEstimate, ...] = ()
    relative: RelativePose | None = None
    reason: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
    beside_ms: dict[str, float] = field(default_factory=dict)
    seen: SeenPoints | None = None
    out_of_distribution: float | None = None
    elsewhere: bool = False

    @property
    def answers(self) -> list[PoseEstimate]:
        """The absolute poses, oldest first."""
        newest = [] if self.absolute is None else [self.absolute]
        return sorted(self.late, key=lambda pose: pose.stamp_ns) + newest


class FrontEnd(Protocol):
    """Turns frames into observations. Created, used and closed in one thread."""

    def observe(self, frame: Frame, prior: PoseEstimate | None) -> Observation:
        """Observe the next frame.

        Args:
            frame: later than every frame observed since the last reset.
            prior: prediction of its pose with covariance, None when there is none.

        Raises:
            FrameRejected: the image cannot be used.
        """
        ...

    def reset(self) -> None:
        """Forget the frames observed so far."""
        ...

    def lost(self) -> None:
        """Forget the poses given so far, which may all be wrong; the frames go on."""
        ...

    def close(self) -> None:
        """Release what is held (engines, threads)."""
        ...
