"""The gate: Mahalanobis distance, poses to start from, late ones, and runs of rejected ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from localizer_ros.core.config.runtime import GateConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import PoseEstimate
from localizer_ros.localization.gate import AGREEING_STARTS, Gate, squared_mahalanobis

SIGMA_M = 0.1
T_MAP_CAM = SE3.exp([0.2, 0.1, 0.0, 1.0, 2.0, 3.0])
LIMIT = float(np.sqrt(chi2.ppf(GateConfig().probability, 6)))
SECOND = 1_000_000_000


def pose(off_m: float = 0.0, stamp_ns: int = 0) -> PoseEstimate:
    """A pose off by so much along one axis."""
    T = T_MAP_CAM @ SE3.exp([0.0, 0.0, 0.0, off_m, 0.0, 0.0])
    return PoseEstimate(stamp_ns, T, np.eye(6) * SIGMA_M**2, "test")


def gate(lag_s: float = 3.0, **settings: float) -> Gate:
    return Gate(GateConfig(**settings), lag_s)


def test_the_distance_is_that_under_the_sum_of_both_covariances() -> None:
    # Two covariances of the same size: the deviation of the difference is the square root of two times one.
    assert squared_mahalanobis(pose(), pose(0.3)) == pytest.approx((0.3 / (np.sqrt(2.0) * SIGMA_M)) ** 2)
    assert squared_mahalanobis(pose(), pose()) == 0.0
    assert squared_mahalanobis(pose(), replace(pose(), covariance=None)) is None


def test_distances_of_gaussian_errors_have_six_degrees_of_freedom(rng: np.random.Generator) -> None:
    roots = [rng.normal(0.0, 0.03, (6, 6)) for _ in range(2)]
    S = [root @ root.T + 1e-4 * np.eye(6) for root in roots]
    drawn = [rng.multivariate_normal(np.zeros(6), each, 5000) for each in S]
    distances = [
        squared_mahalanobis(
            *(PoseEstimate(0, T_MAP_CAM @ SE3.exp(e), s, "") for e, s in zip(pair, S, strict=True))
        )
        for pair in zip(*drawn, strict=True)
    ]
    # The mean of 5000 draws of variance 12 is within three standard errors of 6; the tangent is flat to 2 %.
    assert np.mean(distances) == pytest.approx(6.0, abs=3 * np.sqrt(12 / 5000) + 0.12)


def test_a_pose_is_believed_inside_the_gate_only() -> None:
    edge_m = LIMIT * np.sqrt(2.0) * SIGMA_M
    assert gate().believes(pose(0.99 * edge_m), pose())
    assert not gate().believes(pose(1.01 * edge_m), pose())


def test_a_jump_that_a_vague_prediction_allows_needs_a_pose_that_is_sure() -> None:
    vague = replace(pose(), covariance=np.eye(6) * 4.0)
    sure, unsure = (replace(pose(3.0), confidence=c) for c in (0.9995, 0.99))
    assert gate().believes(sure, vague) and not gate().believes(unsure, vague)
    assert gate().believes(pose(3.0), vague)  # its method knows no confidence
    assert gate().believes(replace(pose(0.3), confidence=0.99), vague)  # no jump
    turned = replace(pose(), T_map_cam=T_MAP_CAM @ SE3.exp([0.0, 0.3, 0.0, 0.0, 0.0, 0.0]), confidence=0.99)
    assert not gate().believes(turned, vague)


def test_a_pose_without_a_prediction_is_believed_and_one_without_a_covariance_is_not() -> None:
    assert gate().believes(pose(100.0), None)
    assert not gate().believes(replace(pose(), covariance=None), pose())
    assert not gate().believes(replace(pose(), covariance=np.full((6, 6), np.nan)), pose())


def test_a_late_pose_is_compared_with_the_estimate_of_its_own_frame() -> None:
    opened = gate()
    opened.remember(pose(5.0, SECOND), SECOND)
    newest = pose(9.0, 2 * SECOND)
    assert opened.believes(pose(5.0, SECOND), newest)
    assert not opened.believes(pose(9.0, SECOND), newest)


def test_estimates_are_kept_for_the_lag() -> None:
    opened = gate(lag_s=1.0)
    opened.remember(pose(5.0, SECOND), SECOND)
    opened.remember(None, 2 * SECOND)
    assert not opened.believes(pose(0.0, SECOND), None)
    opened.remember(None, 2 * SECOND + 1)
    assert opened.believes(pose(0.0, SECOND), None)


@pytest.mark.parametrize(("confidence", "believed"), [(None, True), (0.98, True), (0.97, False)])
def test_a_start_needs_confidence_where_its_method_knows_one(
    confidence: float | None, believed: bool
) -> None:
    assert gate(start_confidence=0.98).believes_start(replace(pose(), confidence=confidence)) is believed


@pytest.mark.parametrize("tracking", [True, False])
def test_rejected_poses_agree_after_so_many_in_a_row(tracking: bool) -> None:
    opened, needed = gate(agreeing_rejections=5), 5 if tracking else AGREEING_STARTS
    for index in range(needed):
        assert not opened.rejected_agree(tracking)
        moved = pose(9.0 + index, index)
        opened.reject(moved, lambda _, moved=moved: moved)
    assert opened.rejected_agree(tracking)


@pytest.mark.parametrize(("step", "proven"), [(0.0, False), (0.3, False), (0.6, True)])
def test_against_a_prediction_rejected_poses_must_move_further_than_their_uncertainty(
    step: float, proven: bool
) -> None:
    edge_m = LIMIT * np.sqrt(2.0) * SIGMA_M
    opened = gate(agreeing_rejections=3)
    for index in range(3):
        moved = pose(9.0 + index * step * edge_m, index)
        opened.reject(moved, lambda _, moved=moved: moved)
    assert opened.rejected_agree(True) is proven


def test_an_accepted_pose_ends_the_run_of_rejected_ones() -> None:
    opened = gate(agreeing_rejections=2)
    opened.reject(pose(9.0), as_it_is)
    opened.accepted(pose(0.0))
    opened.reject(pose(19.0), as_it_is)
    assert not opened.rejected_agree(True)
    opened.reject(pose(19.0), as_it_is)
    assert not opened.rejected_agree(True)  # it has not moved


def as_it_is(answer: PoseEstimate) -> PoseEstimate:
    return answer


def test_a_gate_that_gets_other_thresholds_is_as_one_that_had_them() -> None:
    wide = gate(probability=0.9999, start_confidence=0.98, agreeing_rejections=5)
    wide.reconfigure(GateConfig(probability=0.9, start_confidence=0.5, agreeing_rejections=2))
    narrow = gate(probability=0.9, start_confidence=0.5, agreeing_rejections=2)
    for off_m in np.linspace(0.0, 1.0, 50):
        assert wide.believes(pose(off_m), pose()) == narrow.believes(pose(off_m), pose())
    assert wide.believes_start(replace(pose(), confidence=0.6))
