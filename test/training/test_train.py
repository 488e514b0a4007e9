"""The loop: the same on every run, resumed where it was, stopped in time, with the best weights."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from training_images import NOTHING, some_data

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.config.training import TrainingConfig
from localizer_ros.core.types import NumericalError
from localizer_ros.training.data import PosedImages, ViewSequences
from localizer_ros.training.train import Trainee, TrainingResult, train


class Line(Trainee):
    """Fits the mean colour of an image to its position: small, real, and quick."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.colours = torch.nn.Linear(3, 8)
        self.head = torch.nn.Linear(8, 3)

    @property
    def encoder(self) -> torch.nn.Module:
        return self.colours

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = batch["images"][:, -1].float().mean((2, 3)) / 255.0
        return {"total": (self.head(torch.relu(self.colours(x))) - batch["t"][:, -1]).square().mean()}


def config(epochs: int, **settings: object) -> TrainingConfig:
    return config_from_dict(
        TrainingConfig,
        {"epochs": epochs, "batch_size": 4, "validate_every": 1, "precision": "fp32", **settings},
    )


def sequences(data: PosedImages) -> ViewSequences:
    return ViewSequences(data, 2, 2, NOTHING, 0)


def run_line(work: Path, epochs: int, data: PosedImages, **settings: object) -> tuple[Line, TrainingResult]:
    work.mkdir(exist_ok=True)
    module = Line()
    return module, train(module, sequences(data), config(epochs, **settings), work, None)


class Scores:
    """Validates with given scores, and remembers the heads that were validated."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._left = iter(scores)
        self.heads: list[torch.Tensor] = []

    def __call__(self, average: torch.nn.Module) -> dict[str, float]:
        assert isinstance(average, Line)
        self.heads.append(average.head.weight.detach().clone())
        return {"score": next(self._left)}


def test_no_signal_handler_is_left_behind(tmp_path: Path, rng: np.random.Generator) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    run_line(tmp_path, 1, some_data(12, rng))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    data = some_data(12, rng)
    a, b = (run_line(tmp_path / name, 3, data)[0] for name in "ab")
    c = run_line(tmp_path / "c", 3, data, seed=5)[0]
    assert torch.equal(a.head.weight, b.head.weight)
    assert not torch.equal(a.head.weight, c.head.weight)


def test_a_resumed_training_ends_where_an_uninterrupted_one_ends(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = some_data(12, rng)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 8:  # in the third of four epochs of three steps
            raise Killed

    with pytest.raises(Killed):
        train(Line(), sequences(data), config(4), tmp_path, None, kill)
    resumed, result = run_line(tmp_path, 4, data)
    assert result.epochs == 4
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert (tmp_path / "training.csv").read_text().count("\n") == 5
    uninterrupted, _ = run_line(tmp_path / "whole", 4, data)
    for a, b in zip(resumed.parameters(), uninterrupted.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_time_budget_ends_a_training(tmp_path: Path, rng: np.random.Generator) -> None:
    _, result = run_line(tmp_path, 100_000, some_data(12, rng), time_budget_min=0.01)
    assert result.stopped == "time budget" and result.epochs < 100_000


def test_patience_ends_a_training_with_the_best_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    module, scores = Line(), Scores([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    result = train(module, sequences(some_data(12, rng)), config(50, patience=3), tmp_path, scores)
    assert result.stopped == "patience" and result.best_score == 1.0
    assert torch.equal(module.head.weight, scores.heads[1])


def test_a_diverged_training_says_what_to_do(tmp_path: Path, rng: np.random.Generator) -> None:
    scores = Scores([float("nan")] * 2)
    with pytest.raises(NumericalError, match="lower the learning rate"):
        train(Line(), sequences(some_data(12, rng)), config(2), tmp_path, scores)


@pytest.mark.parametrize(("scores", "kept"), [([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2)])
def test_fine_tuning_keeps_the_start_where_nothing_is_better(
    scores: list[float], kept: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    module, validate = Line(), Scores(scores)
    result = train(module, sequences(some_data(12, rng)), config(2, fine_tune=True), tmp_path, validate)
    assert [row["epoch"] for row in result.history] == [0, 1, 2]
    assert torch.equal(validate.heads[0], Line().head.weight)
    assert torch.equal(module.head.weight, validate.heads[kept]) and result.best_score == 1.0


@pytest.mark.slow
def test_threads_that_opencv_had_before_do_not_hang_the_process_that_renders(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parents[1])!r}]
import cv2, numpy as np
from pathlib import Path
from training_images import some_data
from training.test_train import run_line
cv2.setNumThreads(4)
cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (3000, 3000), interpolation=cv2.INTER_CUBIC)
run_line(Path({str(tmp_path)!r}), 1, some_data(12, np.random.default_rng(0)))
assert cv2.getNumThreads() == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
