"""Verdicts: what makes a run good, doubtful or bad."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from localizer_ros.evaluation.metrics import Metrics
from localizer_ros.evaluation.verdict import judge

RECALL: dict[str, float | None] = {"5cm_5deg": 0.9, "10cm_5deg": 0.95, "25cm_2deg": 0.98, "50cm_5deg": 1.0}
GOOD = Metrics(
    frames=200,
    frames_with_truth=200,
    answered=200,
    wrong=0,
    wrong_fraction=0.0,
    median_t_m=0.02,
    median_r_deg=0.5,
    recall=RECALL,
    jumps_per_min=0.0,
    nees_median=5.0,
)
NEIGHBOUR = replace(GOOD, median_t_m=0.2, median_r_deg=8.0)


def test_a_good_run_needs_no_reason() -> None:
    verdict = judge(GOOD, GOOD, NEIGHBOUR)
    assert (verdict.word, verdict.reasons) == ("good", ())


@pytest.mark.parametrize(
    ("changes", "word", "reason"),
    [
        ({"answered": 180}, "doubtful", "only 90 % of the frames have an answer"),
        ({"answered": 80}, "bad", "only 40 % of the frames have an answer"),
        ({"wrong": 1, "wrong_fraction": 0.005}, "good", ""),
        (
            {"wrong": 4, "wrong_fraction": 0.02},
            "doubtful",
            "wrong answers, off by more than 0.5 m or 10 deg: 4",
        ),
        ({"wrong": 20, "wrong_fraction": 0.1}, "bad", "wrong answers, off by more than 0.5 m or 10 deg: 20"),
        (
            {"recall": {**RECALL, "50cm_5deg": 0.8}},
            "doubtful",
            "only 80 % of the frames are within 0.5 m and 5 deg",
        ),
        (
            {"recall": {**RECALL, "50cm_5deg": 0.3}},
            "bad",
            "only 30 % of the frames are within 0.5 m and 5 deg",
        ),
        ({"nees_median": 40.0}, "doubtful", "covariances are too small: median NEES 40.0, honest is 5.3"),
        ({"jumps_per_min": 250.0}, "doubtful", "the pose jumps 250 times a minute"),
        (
            {"median_t_m": 0.3, "median_r_deg": 9.0},
            "bad",
            "the pose of the mapping image that looks most alike is nearer to the truth",
        ),
        # Nearer, but turned further: neither is better.
        ({"median_t_m": 0.3}, "good", ""),
    ],
)
def test_each_fault_lowers_the_verdict(changes: dict[str, Any], word: str, reason: str) -> None:
    changed = replace(GOOD, **changes)
    verdict = judge(changed, changed, NEIGHBOUR)
    assert (verdict.word, verdict.reasons) == (word, (reason,) if reason else ())


def test_mapping_images_are_no_yardstick_for_themselves() -> None:
    itself = replace(NEIGHBOUR, median_t_m=0.0, median_r_deg=0.0)
    assert judge(GOOD, GOOD, itself).word == "good"


def test_smoothing_that_loses_right_answers_is_doubtful() -> None:
    smoothed = replace(GOOD, recall={**RECALL, "5cm_5deg": 0.5, "10cm_5deg": 0.9})
    verdict = judge(smoothed, GOOD)
    assert verdict.word == "doubtful"
    assert verdict.reasons == (
        "raw answers are better than smoothed ones: 40 % more of the frames are within 0.05 m and 5 deg",
    )
    assert judge(replace(GOOD, recall={**RECALL, "5cm_5deg": 0.88}), GOOD).word == "good"


def test_no_answers_asks_whether_this_is_another_place() -> None:
    nothing = Metrics(frames=50, frames_with_truth=50)
    assert judge(nothing, nothing).word == "bad"
    assert "another place" in judge(nothing, nothing).reasons[0]
    # The search answers: then it is not the place.
    assert judge(nothing, GOOD).reasons == ("none of 50 frames has an answer",)


def test_without_ground_truth_there_is_no_verdict() -> None:
    verdict = judge(Metrics(frames=50, answered=50), Metrics(frames=50, answered=50))
    assert verdict.word is None and "no ground truth" in verdict.reasons[0]
