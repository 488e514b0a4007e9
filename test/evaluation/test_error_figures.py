"""Figures of errors: what they show, and that they can do without truth, answers or confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_runs import NoisySource, noisy_evaluation

from localizer_ros.evaluation.error_figures import (
    confidence_figure,
    cumulative_figure,
    error_figure,
    off_path_figure,
)
from localizer_ros.evaluation.evaluate import Evaluation


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return noisy_evaluation(tmp_path_factory.mktemp("run") / "scene")


def test_errors_over_time_are_cut_at_the_wild_ones(evaluation: Evaluation) -> None:
    position, rotation = error_figure(evaluation).axes
    # One frame is a metre off, the others a quarter at most; it is marked at the top.
    assert position.get_ylim()[1] < 1.4
    assert rotation.get_xlabel().startswith("time")
    assert {
        text.get_text() for legend in error_figure(evaluation).legends for text in legend.get_texts()
    } == {*("3 sigma of the covariance", "raw", "localizer", "no answer")}


def test_shares_within_an_error_count_unanswered_frames(evaluation: Evaluation) -> None:
    position, _ = cumulative_figure(evaluation).axes
    localizer = next(line for line in position.lines if line.get_label() == "localizer")
    # The nearest neighbour must not press the answers to the edge.
    low, high = np.log(position.get_xlim())
    median = float(np.median(np.log(np.asarray(localizer.get_xdata())[1:])))
    assert low + 0.1 * (high - low) < median < low + 0.9 * (high - low)
    assert float(np.max(np.asarray(localizer.get_ydata()))) == pytest.approx(100.0 * 39 / 40)


def test_confidence_against_wrong_answers(evaluation: Evaluation) -> None:
    figure = confidence_figure(evaluation)
    assert figure is not None
    risk, histogram = figure.axes
    for line in risk.lines:
        coverage, wrong = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        # The wrong answer is the least sure one.
        assert coverage.tolist() == pytest.approx([95.0, 97.5])
        assert wrong.tolist() == pytest.approx([0.0, 100.0 / 39])
    assert {text.get_text() for text in histogram.get_legend().get_texts()} == {"right", "wrong"}


def test_figures_without_truth_answers_or_map(tmp_path: Path) -> None:
    blind = noisy_evaluation(tmp_path / "scene", NoisySource("none"), answers=False, baseline=False)
    assert off_path_figure(blind) is None and confidence_figure(blind) is None
    assert any("no ground truth" in text.get_text() for text in error_figure(blind).axes[0].texts)
    assert len(cumulative_figure(blind).axes) == 2
