"""Numbers that say how good a run of answers is.

Conventions, all of which the report states beside the numbers:

- A frame without an answer is a failure in every recall, and is excluded from medians, means and percentiles.
- Nothing is aligned: the map frame of the scene is the frame of the ground truth, and a constant offset is an
  error.
- A frame without ground truth is run and counted, but no accuracy is computed from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array
from localizer_ros.evaluation.answers import (
    Answer,
    adjacent_pairs,
    motion_errors,
    nees,
    percentile_90,
    rms,
    sequences,
    statistic,
)
from localizer_ros.evaluation.confidence import confidence_auroc, risk_coverage

RECALLS = {
    "5cm_5deg": (0.05, 5.0),
    "10cm_5deg": (0.10, 5.0),
    "25cm_2deg": (0.25, 2.0),
    "50cm_5deg": (0.50, 5.0),
}
"""Name -> (metres, degrees); an answer counts when both errors are at most these."""

JUMP_M, JUMP_DEG = 0.2, 5.0
"""Step of the error between two answers, beyond which a consumer sees the robot jump."""

NEES_EXPECTED_MEDIAN = 5.348
"""Median of the chi-square distribution with six degrees of freedom: the NEES of an honest covariance."""

NEES_EXPECTED_P90 = 10.645
"""90th percentile of the same distribution."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """All numbers of one run; None where there is nothing to compute it from.

    Attributes:
        frames: frames that were run.
        frames_with_truth: of these, frames with ground truth; recalls are fractions of them.
        answered: frames with an answer.
        wrong: answers further off than ``WRONG_M`` or ``WRONG_DEG``; None when no answer has ground truth.
        median_t_m: median distance of the answers to the truth; ``mean_`` and ``p90_`` likewise.
        median_r_deg: median angle of the answers to the truth.
        recall: see ``RECALLS``; unanswered frames are failures.
        wrong_fraction: wrong answers as a fraction of the answers.
        ate_rmse_m: root mean square of the distances, without any alignment.
        rpe_t_m: root mean square error of the motion over one second, translation.
        rpe_r_deg: the same, rotation.
        jitter_t_m: root mean square of the frame-to-frame step of the position error (what shakes a robot
            that follows the pose), between adjacent frames that are both answered.
        jitter_r_deg: the same of the rotation.
        jumps_per_min: steps between an answer and the next answer of the same sequence that differ from the
            true motion by more than ``JUMP_M`` or ``JUMP_DEG``, per minute of the time between them.
        nees_median: normalized estimation error squared, see ``answers.nees``; ``NEES_EXPECTED_MEDIAN`` when the
            covariance is honest, more when it is too small.
        nees_p90: the same, 90th percentile; ``NEES_EXPECTED_P90`` when it is honest in the tail, too.
        confidence_auroc: see ``confidence.confidence_auroc``; None also when all answers are right, or all wrong.
        risk_coverage: see ``confidence.risk_coverage``.
    """

    frames: int = 0
    frames_with_truth: int = 0
    answered: int = 0
    wrong: int | None = None
    median_t_m: float | None = None
    median_r_deg: float | None = None
    mean_t_m: float | None = None
    mean_r_deg: float | None = None
    p90_t_m: float | None = None
    p90_r_deg: float | None = None
    recall: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(RECALLS))
    wrong_fraction: float | None = None
    ate_rmse_m: float | None = None
    rpe_t_m: float | None = None
    rpe_r_deg: float | None = None
    jitter_t_m: float | None = None
    jitter_r_deg: float | None = None
    jumps_per_min: float | None = None
    nees_median: float | None = None
    nees_p90: float | None = None
    confidence_auroc: float | None = None
    risk_coverage: list[list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compute_metrics(answers: Sequence[Answer]) -> Metrics:
    """All metrics of frames in order of time, sequence by sequence."""
    with_truth = [a for a in answers if a.T_map_true is not None]
    judged = [a for a in with_truth if a.T_map_cam is not None]
    errors_m = np.array([a.error_m for a in judged])
    errors_deg = np.array([a.error_deg for a in judged])
    wrong = np.array([bool(a.wrong) for a in judged], dtype=np.float64)
    rpe_m, rpe_deg = motion_errors(answers)
    steps_m, steps_deg = _steps(list(adjacent_pairs(answers)))
    nees_values = np.array([value for a in with_truth if (value := nees(a)) is not None])
    return Metrics(
        frames=len(answers),
        frames_with_truth=len(with_truth),
        answered=sum(a.T_map_cam is not None for a in answers),
        wrong=int(wrong.sum()) if judged else None,
        median_t_m=statistic(np.median, errors_m),
        median_r_deg=statistic(np.median, errors_deg),
        mean_t_m=statistic(np.mean, errors_m),
        mean_r_deg=statistic(np.mean, errors_deg),
        p90_t_m=statistic(percentile_90, errors_m),
        p90_r_deg=statistic(percentile_90, errors_deg),
        recall={
            name: float(np.count_nonzero((errors_m <= m) & (errors_deg <= deg)) / len(with_truth))
            if with_truth
            else None
            for name, (m, deg) in RECALLS.items()
        },
        wrong_fraction=statistic(np.mean, wrong),
        ate_rmse_m=statistic(rms, errors_m),
        rpe_t_m=statistic(rms, rpe_m),
        rpe_r_deg=statistic(rms, rpe_deg),
        jitter_t_m=statistic(rms, steps_m),
        jitter_r_deg=statistic(rms, steps_deg),
        jumps_per_min=jumps_per_minute(answers),
        nees_median=statistic(np.median, nees_values),
        nees_p90=statistic(percentile_90, nees_values),
        confidence_auroc=confidence_auroc(answers),
        risk_coverage=risk_coverage(answers),
    )


def jumps_per_minute(answers: Sequence[Answer]) -> float | None:
    """See ``Metrics.jumps_per_min``; None when no two answers of a sequence follow each other.

    A gap without answers between the two does not excuse the step: the consumer sees the pose before and
    after it.
    """
    pairs = [
        pair
        for sequence in sequences(
            [a for a in answers if a.T_map_cam is not None and a.T_map_true is not None]
        )
        for pair in itertools.pairwise(sequence)
    ]
    if not pairs:
        return None
    steps_m, steps_deg = _steps(pairs)
    minutes = sum(b.stamp_ns - a.stamp_ns for a, b in pairs) / 60e9
    if minutes <= 0.0:
        return None
    return float(np.count_nonzero((steps_m > JUMP_M) | (steps_deg > JUMP_DEG)) / minutes)


def _steps(pairs: Sequence[tuple[Answer, Answer]]) -> tuple[Array, Array]:
    """Difference of the estimated and the true motion of each pair: metres and degrees.

    The translation is compared in the map frame, so that a constant error of orientation, which makes no pose
    jump, is not multiplied by the distance driven.
    """
    steps_m, steps_deg = [], []
    for a, b in pairs:
        assert a.T_map_true and a.T_map_cam and b.T_map_true and b.T_map_cam
        step = (b.T_map_cam.t - a.T_map_cam.t) - (b.T_map_true.t - a.T_map_true.t)
        steps_m.append(float(np.linalg.norm(step)))
        motion_true = SE3(a.T_map_true.R.T @ b.T_map_true.R, np.zeros(3))
        motion_est = SE3(a.T_map_cam.R.T @ b.T_map_cam.R, np.zeros(3))
        steps_deg.append(float(np.degrees(motion_true.angle_to(motion_est))))
    return np.array(steps_m), np.array(steps_deg)
