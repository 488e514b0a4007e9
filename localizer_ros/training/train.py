"""One resumable training loop on Lightning Fabric."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from localizer_ros.core.config.training import TrainingConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import NumericalError
from localizer_ros.training.batches import SharedBatches, TrainingData, epoch_seed
from localizer_ros.training.runtime import (
    child_signals_restored,
    images_on_one_core,
    open_fabric,
    trains_in_bf16,
)

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.ckpt"
HISTORY = "training.csv"
# Between validations, so that little is lost when a long training is killed.
CHECKPOINT_PERIOD_S = 60.0
# How far time must be ahead of the epochs before it sets the learning rate, as a share of the time budget.
TIME_AHEAD = 0.05
# Steps over which the learning rate rises to its full size, and the share of it that is left at the end.
_WARM_UP_STEPS, _LEAST_RATE = 50.0, 1e-3
# Largest norm of a gradient, and the largest share of the average that each step keeps.
_CLIPPED_NORM, _AVERAGE_DECAY = 5.0, 0.998
# Keeps the random numbers of dropout apart in processes that train together: a prime.
_RANK_STRIDE = 7919

Validate = Callable[[nn.Module], dict[str, float]]


class Trainee(nn.Module):
    """What is trained: ``module(batch)`` gives losses by name, ``total`` is minimised."""

    @property
    def encoder(self) -> nn.Module:
        """The part that learns at ``encoder_learning_rate``."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        epochs: epochs run in total, those before a resume counted in.
        minutes: wall time of this call.
        best_score: validation score of the weights that were kept; smaller is better; None without validation part.
        stopped: ``finished``, ``patience`` or ``time budget``.
        history: one row a validation: epoch, minutes, losses, validation figures.
    """

    epochs: int
    minutes: float
    best_score: float | None
    stopped: str
    history: list[dict[str, float]]


@dataclass
class _State:
    """Where a training is; part of its checkpoint."""

    epoch: int = 0
    step: int = 0
    minutes: float = 0.0
    best_score: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@child_signals_restored()
@images_on_one_core()
def train(
    module: Trainee,
    data: TrainingData,
    config: TrainingConfig,
    work: Path,
    validate: Validate | None,
    progress: Progress = no_progress,
    fabric: Fabric | None = None,
) -> TrainingResult:
    """What the training of ``module`` did; the module is trained in place and holds the best weights.

    It goes on from the checkpoint in ``work`` when there is one. Several processes share every batch and end with the
    same weights. The first of them keeps the time, validates, and writes; its word decides for all.

    Args:
        module: what is trained.
        data: an item gives a row of a batch.
        config: the loop's settings.
        work: folder for ``checkpoint.ckpt`` and ``training.csv``; exists.
        validate: called with the averaged module; must give ``score``. None without a validation part.
        progress: told after every step.
        fabric: of :func:`localizer_ros.training.runtime.open_fabric`, where it is open already.

    Raises:
        NumericalError: no validation gave a finite score.
        ConfigError: a batch is too small to share.
    """
    return _Training(module, data, config, work, validate, progress, fabric or open_fabric()).run()


class _Training:
    """The loop behind :func:`train`."""

    def __init__(
        self,
        module: Trainee,
        data: TrainingData,
        config: TrainingConfig,
        work: Path,
        validate: Validate | None,
        progress: Progress,
        fabric: Fabric,
    ) -> None:
        self._started = time.monotonic()
        self._module, self._config, self._work = module, config, work
        self._validate, self._progress, self._fabric = validate, progress, fabric
        self._first = fabric.global_rank == 0
        fabric.seed_everything(config.seed, verbose=False)
        optimizer = _optimizer(module, config)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        # The answer comes from an average over the last steps: smoother than any single step's weights.
        self._average = copy.deepcopy(module).requires_grad_(False)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        self._wrapped, self._optimizer = cast("tuple[nn.Module, Any]", fabric.setup(module, optimizer))
        self._average.to(fabric.device)
        self._batches = SharedBatches(
            len(data), config.batch_size, config.seed, fabric.global_rank, fabric.world_size
        )
        loader = DataLoader(
            cast("Dataset[dict[str, Tensor]]", data),
            batch_sampler=self._batches,
            num_workers=1,
            persistent_workers=True,
        )
        self._loader = cast(
            "DataLoader[dict[str, Tensor]]", fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        )
        self._state = _State()
        self._checkpoint = work / CHECKPOINT
        if self._checkpoint.exists():
            self._resume()
        self._minutes_before = self._state.minutes
        self._saved_at = self._started

    def run(self) -> TrainingResult:
        """What was done until the epochs, the patience or the time were used up."""
        config, state = self._config, self._state
        if config.fine_tune and not state.history:
            self._judge({})
        stopped = "finished"
        self._saved_at = time.monotonic()
        while state.epoch < config.epochs and stopped == "finished":
            losses, timed_out = self._run_epoch()
            state.epoch += 1
            if timed_out:
                stopped = "time budget"
            last = state.epoch == config.epochs or stopped != "finished"
            due = last or state.epoch % config.validate_every == 0
            if due:
                self._judge(losses)
                if state.since_best >= config.patience and stopped == "finished":
                    stopped = "patience"
            if self._first and (due or time.monotonic() - self._saved_at > CHECKPOINT_PERIOD_S):
                self._save()
        if not state.best:
            raise NumericalError(
                f"training: no finite answer on the validation part after {state.epoch} epochs; "
                "lower the learning rate"
            )
        self._module.load_state_dict(state.best)
        self._module.eval()
        return TrainingResult(
            epochs=state.epoch,
            minutes=state.minutes - self._minutes_before,
            best_score=None if self._validate is None else float(state.best_score),
            stopped=stopped,
            history=state.history,
        )

    def _run_epoch(self) -> tuple[dict[str, float], bool]:
        """Mean losses by name, and whether the time budget is used up."""
        config, state, steps = self._config, self._state, len(self._loader)
        self._batches.epoch = state.epoch
        # Of dropout; each process drops its own.
        torch.manual_seed(epoch_seed(config.seed, state.epoch) + _RANK_STRIDE * self._fabric.global_rank)
        self._wrapped.train()
        means: dict[str, float] = {}
        for batch in self._loader:
            elapsed_min = (time.monotonic() - self._started) / 60.0
            state.minutes = self._fabric.broadcast(self._minutes_before + elapsed_min)
            self._set_rate(steps)
            for name, value in self._run_step(batch).items():
                means[name] = means.get(name, 0.0) + float(value.detach()) / steps
            if self._first:
                self._progress("training", state.step, config.epochs * steps)
            if 0.0 < config.time_budget_min <= state.minutes:
                return means, True
        return means, False

    def _set_rate(self, steps: int) -> None:
        """Set the learning rates of the next step: a short rise, then a cosine down to next to nothing.

        The schedule runs over epochs or over the time budget, whichever is further on, so that a budget ends with small
        steps too. Time counts when it is clearly ahead: a training that keeps within its budget shall be the same each
        time, however long its first steps took.
        """
        config, state = self._config, self._state
        done = state.step / (config.epochs * steps)
        if config.time_budget_min > 0.0:
            spent = state.minutes / config.time_budget_min
            done = max(done, (spent - TIME_AHEAD) / (1.0 - TIME_AHEAD))
        rise = min(1.0, (state.step + 1) / _WARM_UP_STEPS)
        rate = rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * max(rate, _LEAST_RATE)

    def _run_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name of a batch, after a step down their gradient."""
        fabric, state = self._fabric, self._state
        half = trains_in_bf16(self._config.precision, fabric.device)
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=half):
            losses: dict[str, Tensor] = self._wrapped(batch)
        self._optimizer.zero_grad(set_to_none=True)
        fabric.backward(losses["total"])
        fabric.clip_gradients(
            self._wrapped, self._optimizer, max_norm=_CLIPPED_NORM, error_if_nonfinite=False
        )
        self._optimizer.step()
        state.step += 1
        move_average(self._average, self._module, min(_AVERAGE_DECAY, (1 + state.step) / (10 + state.step)))
        return losses

    def _judge(self, losses: dict[str, float]) -> None:
        """Validate the average, keep it where it is the best so far, and note down what it is like."""
        fabric, state = self._fabric, self._state
        # Norms have seen other images in each process; those of the first count.
        for buffer in self._average.buffers() if fabric.world_size > 1 else ():
            buffer.copy_(fabric.broadcast(buffer))
        validates = self._validate is not None and self._first
        figures = self._validate(self._average) if self._validate is not None and validates else {}
        figures = fabric.broadcast(figures)
        # Without a validation part the last weights are the best there are.
        if self._validate is None or figures["score"] < state.best_score:
            state.best_score, state.since_best = figures.get("score", math.inf), 0
            state.best = {k: v.detach().clone() for k, v in self._average.state_dict().items()}
        else:
            state.since_best += 1
        row = {"epoch": float(state.epoch), "minutes": state.minutes, **losses}
        row.update({f"val_{name}": value for name, value in figures.items()})
        state.history.append(row)
        if self._first:
            logger.info(" ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        _write_csv(self._work / HISTORY, self._state.history)
        temporary = self._checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "module": self._module.state_dict(),
                "average": self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "state": vars(self._state),
            },
            temporary,
        )
        temporary.replace(self._checkpoint)

    def _resume(self) -> None:
        saved = torch.load(self._checkpoint, map_location=self._fabric.device, weights_only=True)
        self._module.load_state_dict(saved["module"])
        self._average.load_state_dict(saved["average"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._state = _State(**saved["state"])
        logger.info("resumed at epoch %d", self._state.epoch)


def _optimizer(module: Trainee, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW with a learning rate for the encoder and one for everything else; rate zero freezes the encoder."""
    encoder = module.encoder
    if config.encoder_learning_rate == 0.0:
        encoder.requires_grad_(False)
    in_encoder = {id(p) for p in encoder.parameters()}
    rest = [p for p in module.parameters() if id(p) not in in_encoder]
    learning = [p for p in module.parameters() if id(p) in in_encoder and p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": rest, "lr": config.learning_rate},
            {"params": learning, "lr": config.encoder_learning_rate},
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay · average + (1 - decay) · module; integers and buffers are copied."""
    parameters = [(a, p) for a, p in zip(average.parameters(), module.parameters(), strict=True)]
    torch._foreach_lerp_([a for a, _ in parameters], [p.detach() for _, p in parameters], 1.0 - decay)
    for a, b in zip(average.buffers(), module.buffers(), strict=True):
        a.copy_(b)


def _write_csv(path: Path, history: list[dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
