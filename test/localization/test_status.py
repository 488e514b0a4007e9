"""Status by age and uncertainty, and the line that a user reads."""

from __future__ import annotations

import numpy as np
import pytest

from localizer_ros.core.config.runtime import StatusConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import PoseEstimate, Status
from localizer_ros.localization.gate import AnswerOutcome
from localizer_ros.localization.status import Judgement, Trust, explain, judge

CONFIG = StatusConfig(degraded_after_s=0.5, lost_after_s=2.0, degraded_sigma_m=1.0, lost_sigma_m=3.0)
NOW_NS = 10_000_000_000


def known_to(sigma_m: float) -> PoseEstimate:
    """A pose whose worst axis is no axis of the map."""
    R = SE3.exp([0.3, 0.2, 0.1, 0.0, 0.0, 0.0]).R
    S = np.eye(6) * 1e-4
    S[3:, 3:] = R @ np.diag([sigma_m**2, 1e-4, 1e-4]) @ R.T
    return PoseEstimate(NOW_NS, SE3.identity(), S, "smoother")


@pytest.mark.parametrize(
    ("since_s", "sigma_m", "status", "why"),
    [
        (0.0, 0.1, Status.TRACKING, ""),
        (0.4, 0.9, Status.TRACKING, ""),
        (0.6, 0.1, Status.DEGRADED, "no believable absolute pose for 0.6 s"),
        (0.6, 1.5, Status.DEGRADED, "no believable absolute pose for 0.6 s"),
        (0.0, 1.5, Status.DEGRADED, "position known to 1.5 m only"),
        (0.6, 3.5, Status.LOST, "position known to 3.5 m only"),
        (2.1, 0.1, Status.LOST, "no believable absolute pose for 2.1 s"),
    ],
)
def test_the_status_follows_from_age_and_uncertainty(
    since_s: float, sigma_m: float, status: Status, why: str
) -> None:
    found = judge(NOW_NS, NOW_NS - round(since_s * 1e9), known_to(sigma_m), CONFIG)
    assert found == Judgement(status, why)
    assert found.usable == (status is not Status.LOST)


@pytest.mark.parametrize(
    ("sigma_m", "status"), [(0.1, Status.DEGRADED), (2.9, Status.DEGRADED), (3.1, Status.LOST)]
)
def test_what_odometry_carries_is_lost_by_its_uncertainty_alone(sigma_m: float, status: Status) -> None:
    found = judge(NOW_NS, NOW_NS - 60_000_000_000, known_to(sigma_m), CONFIG, by_odometry=True)
    assert found.status is status


def test_a_contradiction_degrades_at_once_and_loses_nothing() -> None:
    assert judge(NOW_NS, NOW_NS, known_to(0.1), CONFIG, contradicted=True).status is Status.DEGRADED
    assert judge(NOW_NS, NOW_NS, known_to(3.5), CONFIG, contradicted=True).status is Status.LOST


def test_a_pose_of_unknown_orientation_is_lost() -> None:
    unsure = PoseEstimate(NOW_NS, SE3.identity(), np.diag([0.01, 0.7, 0.01, 1e-4, 1e-4, 1e-4]), "smoother")
    assert judge(NOW_NS, NOW_NS, unsure, CONFIG) == Judgement(Status.LOST, "orientation known to 48 deg only")


def test_without_an_accepted_pose_it_is_initializing() -> None:
    assert judge(NOW_NS, None, None, CONFIG) == Judgement(Status.INITIALIZING, "no absolute pose yet")


def test_without_an_estimate_it_is_degraded_until_it_is_lost() -> None:
    assert judge(NOW_NS, NOW_NS, None, CONFIG).status is Status.DEGRADED
    assert judge(NOW_NS, NOW_NS - 3_000_000_000, None, CONFIG).status is Status.LOST


def test_the_reason_names_everything_once_in_order() -> None:
    outcomes = [AnswerOutcome.REJECTED, AnswerOutcome.ACCEPTED, AnswerOutcome.REJECTED]
    said = explain(3.14, "too dark", outcomes, Judgement(Status.DEGRADED, "no estimate for this frame"))
    assert said.split("; ") == [
        "no frame for 3.1 s: started over",
        "too dark",
        AnswerOutcome.REJECTED.value,
        "no estimate for this frame",
    ]
    assert explain(-1.0, "", [], Judgement(Status.TRACKING)) == "time jumped back: started over"
    assert explain(None, "", [AnswerOutcome.ACCEPTED], Judgement(Status.TRACKING)) == ""


def test_a_prediction_is_vouched_for_by_accepted_poses_and_measured_motions_alone() -> None:
    trust = Trust()
    assert not trust.vouched
    trust = trust.after(accepted=True, measured=False, contradicted=False)
    assert trust.vouched and not trust.doubted
    assert trust.after(accepted=False, measured=True, contradicted=False).vouched
    assert not trust.after(accepted=False, measured=False, contradicted=False).vouched


def test_a_contradiction_is_doubt_until_a_pose_is_accepted() -> None:
    trust = Trust(vouched=True).after(accepted=False, measured=True, contradicted=True)
    assert trust.doubted and not trust.vouched
    trust = trust.after(accepted=False, measured=True, contradicted=False)
    assert trust.doubted and not trust.vouched
    trust = trust.after(accepted=True, measured=False, contradicted=False)
    assert trust.vouched and not trust.doubted
