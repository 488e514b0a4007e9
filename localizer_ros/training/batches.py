"""What a training reads: items of epochs, in an order that depends on the seed alone, shared between processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

from localizer_ros.core.types import ConfigError


class TrainingData(Protocol):
    """Items of as many epochs as are wanted; item ``epoch * len(data) + index`` depends on that number alone."""

    def __len__(self) -> int:
        """Items of one epoch."""
        ...

    def __getitem__(self, number: int, /) -> dict[str, Tensor]: ...


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

    Raises:
        ConfigError: a batch is too small to share.
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
