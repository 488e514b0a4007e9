"""How far an answer can be trusted, and what a user is told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from localizer_ros.core.config.runtime import StatusConfig
from localizer_ros.core.types import Array, PoseEstimate, Status
from localizer_ros.localization.gate import AnswerOutcome


@dataclass(frozen=True, slots=True)
class Trust:
    """What a prediction is worth.

    Attributes:
        vouched: accepted poses, and motions that were measured since, lead to the last estimate, and nothing has
            contradicted it. Else it is a guess, which must not choose between places that look alike.
        doubted: something has contradicted it, and no pose was accepted since.
    """

    vouched: bool = False
    doubted: bool = False

    def after(self, accepted: bool, measured: bool, contradicted: bool) -> Trust:
        """The trust after a frame.

        Args:
            accepted: a pose was.
            measured: the motion to the frame was.
            contradicted: what the frame shows lies elsewhere.
        """
        vouched = accepted or (self.vouched and measured and not contradicted)
        return Trust(vouched, contradicted or (self.doubted and not accepted))


@dataclass(frozen=True, slots=True)
class Judgement:
    """A status and why it is not TRACKING; empty when it is, or where what became of the answers says so."""

    status: Status
    why: str = ""

    @property
    def usable(self) -> bool:
        """True where the estimate is worth publishing, with or without a warning."""
        return self.status in (Status.TRACKING, Status.DEGRADED)

    def at_best_degraded(self, why: str) -> Judgement:
        """The same with a further reason, for which it is not TRACKING."""
        status = Status.DEGRADED if self.status is Status.TRACKING else self.status
        return Judgement(status, "; ".join(text for text in (why, self.why) if text))


def judge(
    stamp_ns: int,
    accepted_ns: int | None,
    estimate: PoseEstimate | None,
    config: StatusConfig,
    by_odometry: bool = False,
    contradicted: bool = False,
) -> Judgement:
    """The status of a frame.

    Args:
        stamp_ns: of the frame.
        accepted_ns: of the newest absolute pose that was believed, None when there was none yet.
        estimate: of the frame, None when there is none.
        config: thresholds.
        by_odometry: external odometry has measured the whole way since that pose: what it carries is lost by its
            uncertainty alone, however long ago the pose was.
        contradicted: an absolute pose that was sure of itself lies elsewhere. One of the two is wrong, and nobody knows
            which.
    """
    if accepted_ns is None:
        return Judgement(Status.INITIALIZING, "no absolute pose yet")
    since_s = (stamp_ns - accepted_ns) * 1e-9
    unconfirmed = f"no believable absolute pose for {since_s:.1f} s"
    if since_s > config.lost_after_s and not (by_odometry and estimate is not None):
        return Judgement(Status.LOST, unconfirmed)
    if estimate is None or estimate.covariance is None:
        return Judgement(Status.DEGRADED, "no estimate for this frame")
    sigma_deg, sigma_m = (
        np.degrees(largest_sigma(estimate.covariance[:3, :3])),
        largest_sigma(estimate.covariance[3:, 3:]),
    )
    uncertain = f"position known to {sigma_m:.1f} m only"
    if sigma_m > config.lost_sigma_m:
        return Judgement(Status.LOST, uncertain)
    if sigma_deg > config.lost_sigma_deg:
        return Judgement(Status.LOST, f"orientation known to {sigma_deg:.0f} deg only")
    if contradicted:
        return Judgement(Status.DEGRADED)
    if since_s > config.degraded_after_s:
        return Judgement(Status.DEGRADED, unconfirmed)
    if sigma_m > config.degraded_sigma_m:
        return Judgement(Status.DEGRADED, uncertain)
    return Judgement(Status.TRACKING)


def judge_repeated(
    stamps_ns: tuple[int, int, int],
    accepted_ns: int | None,
    estimate: PoseEstimate | None,
    config: StatusConfig,
    odometry_moved: bool | None,
    from_the_start: bool,
) -> Judgement:
    """The status of a frame whose image shows nothing new.

    Args:
        stamps_ns: of the frame, of the last one that showed something new, and of the first one with this image.
        accepted_ns: see :func:`judge`.
        estimate: of the frame, None when there is none.
        config: thresholds.
        odometry_moved: whether external odometry has moved meanwhile; None where nobody knows.
        from_the_start: the camera has never shown another image.
    """
    stamp_ns, new_ns, since_ns = stamps_ns
    identical = f"identical images for {(stamp_ns - since_ns) * 1e-9:.1f} s"
    if odometry_moved:
        judged = judge(stamp_ns, accepted_ns, estimate, config, by_odometry=True)
        return judged.at_best_degraded(f"{identical} while odometry moves: the camera is frozen")
    # What is as it was is known as well as it was.
    judged = judge(new_ns, accepted_ns, estimate, config)
    if odometry_moved is None or from_the_start:
        return judged.at_best_degraded(f"{identical}: the camera is frozen, or stands still and has no noise")
    return judged if judged.usable else judged.at_best_degraded(identical)


def bounded(estimate: PoseEstimate, config: StatusConfig) -> PoseEstimate:
    """The estimate with standard deviations that just do not make it LOST."""
    assert estimate.covariance is not None
    share = 0.99
    sigma_rad = largest_sigma(estimate.covariance[:3, :3])
    sigma_m = largest_sigma(estimate.covariance[3:, 3:])
    scale = np.repeat(
        [
            min(1.0, share * np.radians(config.lost_sigma_deg) / sigma_rad),
            min(1.0, share * config.lost_sigma_m / sigma_m),
        ],
        3,
    )
    return replace(estimate, covariance=estimate.covariance * np.outer(scale, scale))


def largest_sigma(covariance: Array) -> float:
    """Standard deviation along the axis that is known least, of a (3, 3) covariance."""
    return float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def explain(
    restart_gap_s: float | None, observed: str, outcomes: Iterable[AnswerOutcome], judgement: Judgement
) -> str:
    """One line of all there is to say of a frame, each thing once; empty when all is well.

    Args:
        restart_gap_s: time since the frame before where that made everything start over, negative where it jumped
            back; None where nothing did.
        observed: the front end's reason.
        outcomes: of the absolute poses.
        judgement: the status.
    """
    restarted = ""
    if restart_gap_s is not None:
        cause = "time jumped back" if restart_gap_s < 0.0 else f"no frame for {restart_gap_s:.1f} s"
        restarted = f"{cause}: started over"
    texts = (restarted, observed, *(outcome.value for outcome in outcomes), judgement.why)
    return "; ".join(dict.fromkeys(text for text in texts if text))
