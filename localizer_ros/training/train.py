"""One flat, resumable training loop on Lightning Fabric."""

from __future__ import annotations

import copy
import csv
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from localizer_ros.core.config.training import TrainingConfig
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError, NumericalError
from localizer_ros.training.processes import open_fabric

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.ckpt"
# Between validations, so that little is lost when a long training is killed.
CHECKPOINT_PERIOD_S = 60.0
# As a share of the time budget.
TIME_AHEAD = 0.05


class TrainingData(Protocol):
    """Items of as many epochs as are wanted; item ``epoch * len(data) + index`` depends on that number alone."""

    def __len__(self) -> int:
        """Items of one epoch."""
        ...

    def __getitem__(self, number: int) -> dict[str, Tensor]: ...


class SharedBatches(Sampler[list[int]]):
    """Numbers of the items of each batch of an epoch, in an order that depends on seed and epoch alone, and of these
    the part that this process works on.

    Args:
        count: items of an epoch.
        batch_size: of all processes together; a last, smaller batch is left out unless it is the only one.
        seed: of the order.
        rank, processes: this process, and how many there are.

    Attributes:
        epoch: the one to iterate over next.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, processes: int) -> None:
        self.epoch = 0
        self._count, self._size, self._seed = count, min(batch_size, count), seed
        self._rank, self._processes = rank, processes
        if self._size < processes:
            raise ConfigError(f"training.batch_size: batches of {self._size} for {processes} processes")

    def __len__(self) -> int:
        return self._count // self._size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self.epoch))
        order = self.epoch * self._count + torch.randperm(self._count, generator=generator)
        for batch in order[: len(self) * self._size].split(self._size):
            yield batch[self._rank :: self._processes].tolist()


def epoch_seed(seed: int, epoch: int) -> int:
    """What an epoch draws depends on these alone, so that a resumed training is the same training."""
    return seed * 1_000_003 + epoch


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


@contextmanager
def _child_signals_restored() -> Iterator[None]:
    """Take back the handler that a DataLoader leaves for the end of child processes.

    Called later, when an inference engine or a viewer has replaced the signal stack, it crashes the process at the end
    of whatever child comes next.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # Only the main thread may set handlers; in another one a DataLoader sets none.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)


@contextmanager
def _images_on_one_core() -> Iterator[None]:
    """The training itself needs the others.

    Set here and not in the process that renders: OpenCV's threads do not survive the fork, and taking them down there
    waits for ever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@_child_signals_restored()
@_images_on_one_core()
def train(
    module: nn.Module,
    encoder: nn.Module,
    data: TrainingData,
    config: TrainingConfig,
    work: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None,
    resume: bool = False,
    progress: Progress = no_progress,
    fabric: Fabric | None = None,
) -> TrainingResult:
    """Train ``module`` in place; on return it holds the best weights.

    Several processes share every batch and end with the same weights. The first of them keeps the time, validates, and
    writes; its word decides for all.

    Args:
        module: ``module(batch)`` gives losses by name, ``total`` is minimised.
        encoder: the part of it that learns at ``encoder_learning_rate``.
        data: an item gives a row of a batch.
        config: the loop's settings.
        work: folder for ``checkpoint.ckpt`` and ``training.csv``; exists.
        validate: called with the averaged module; must give ``score``. None without a validation part.
        resume: go on from the checkpoint in ``work`` when there is one.
        progress: told after every step.
        fabric: of :func:`localizer_ros.training.processes.open_fabric`, where it is open already.

    Raises:
        NumericalError: no validation gave a finite score.
        ConfigError: a batch is too small to share.
    """
    started = time.monotonic()
    fabric = fabric or open_fabric()
    first = fabric.global_rank == 0
    half = config.precision == "bf16"
    fabric.seed_everything(config.seed, verbose=False)
    in_encoder = {id(p) for p in encoder.parameters()}
    if config.encoder_learning_rate == 0.0:
        encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in module.parameters() if id(p) not in in_encoder],
                "lr": config.learning_rate,
            },
            {
                "params": [p for p in module.parameters() if id(p) in in_encoder and p.requires_grad],
                "lr": config.encoder_learning_rate,
            },
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )
    base_rates = [group["lr"] for group in optimizer.param_groups]
    # The answer comes from an average over the last steps: smoother than any single step's weights.
    average = copy.deepcopy(module).requires_grad_(False)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, optimizer = fabric.setup(module, optimizer)
    average.to(fabric.device)
    batches = SharedBatches(len(data), config.batch_size, config.seed, fabric.global_rank, fabric.world_size)
    loader = fabric.setup_dataloaders(
        DataLoader(data, batch_sampler=batches, num_workers=1, persistent_workers=True),
        use_distributed_sampler=False,
    )
    state: dict[str, Any] = {
        "epoch": 0,
        "step": 0,
        "minutes": 0.0,
        "best_score": math.inf,
        "best": {},
        "since_best": 0,
        "history": [],
    }
    checkpoint = work / CHECKPOINT
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=fabric.device, weights_only=True)
        module.load_state_dict(saved["module"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        logger.info("resumed at epoch %d", state["epoch"])
    before = state["minutes"]

    def judge(losses: dict[str, float]) -> None:
        """Validate the average, keep it where it is the best so far, and note down what it is like."""
        # Norms have seen other images in each process; those of the first count.
        for buffer in average.buffers() if fabric.world_size > 1 else ():
            buffer.copy_(fabric.broadcast(buffer))
        figures = fabric.broadcast(validate(average) if validate is not None and first else {})
        # Without a validation part the last weights are the best there are.
        if validate is None or figures["score"] < state["best_score"]:
            state.update(best_score=figures.get("score", math.inf), since_best=0)
            state["best"] = {k: v.detach().clone() for k, v in average.state_dict().items()}
        else:
            state["since_best"] += 1
        row = {"epoch": float(state["epoch"]), "minutes": state["minutes"], **losses}
        row.update({f"val_{name}": value for name, value in figures.items()})
        state["history"].append(row)
        if first:
            logger.info(" ".join(f"{k} {v:.4g}" for k, v in row.items()))

    if config.fine_tune and not state["history"]:
        judge({})
    stopped = "finished"
    steps = len(loader)
    saved_at = time.monotonic()
    while state["epoch"] < config.epochs and stopped == "finished":
        batches.epoch = state["epoch"]
        # Of dropout; each process drops its own.
        torch.manual_seed(epoch_seed(config.seed, state["epoch"]) + 7919 * fabric.global_rank)
        wrapped.train()
        sums: dict[str, float] = {}
        for batch in loader:
            state["minutes"] = fabric.broadcast(before + (time.monotonic() - started) / 60.0)
            # The schedule runs over epochs or over the time budget, whichever is further on, so that a budget ends
            # with small steps too. Time counts when it is clearly ahead: a training that keeps within its budget shall
            # be the same each time, however long its first steps took.
            done = state["step"] / (config.epochs * steps)
            if config.time_budget_min > 0.0:
                spent = state["minutes"] / config.time_budget_min
                done = max(done, (spent - TIME_AHEAD) / (1.0 - TIME_AHEAD))
            rate = min(1.0, (state["step"] + 1) / 50.0) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
            for group, base in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = base * max(rate, 1e-3)
            with torch.autocast(fabric.device.type, torch.bfloat16, enabled=half):
                losses: dict[str, Tensor] = wrapped(batch)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(losses["total"])
            fabric.clip_gradients(wrapped, optimizer, max_norm=5.0, error_if_nonfinite=False)
            optimizer.step()
            state["step"] += 1
            _move_average(average, module, min(0.998, (1 + state["step"]) / (10 + state["step"])))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / steps
            if first:
                progress("training", state["step"], config.epochs * steps)
            if 0.0 < config.time_budget_min <= state["minutes"]:
                stopped = "time budget"
                break
        state["epoch"] += 1
        last = state["epoch"] == config.epochs or stopped != "finished"
        due = last or state["epoch"] % config.validate_every == 0
        if due:
            judge(sums)
            if state["since_best"] >= config.patience and stopped == "finished":
                stopped = "patience"
        if first and (due or time.monotonic() - saved_at > CHECKPOINT_PERIOD_S):
            saved_at = time.monotonic()
            _write_csv(work / "training.csv", state["history"])
            temporary = checkpoint.with_suffix(".tmp")
            torch.save(
                {
                    "module": module.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "state": state,
                },
                temporary,
            )
            temporary.replace(checkpoint)
    if not state["best"]:
        raise NumericalError(
            f"training: no finite answer on the validation part after {state['epoch']} epochs; lower the learning rate"
        )
    module.load_state_dict(state["best"])
    module.eval()
    return TrainingResult(
        epochs=state["epoch"],
        minutes=state["minutes"] - before,
        best_score=None if validate is None else float(state["best_score"]),
        stopped=stopped,
        history=state["history"],
    )


@torch.no_grad()
def _move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
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
