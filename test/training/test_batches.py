"""Batches that processes share."""

from __future__ import annotations

from itertools import chain

import pytest

from localizer_ros.core.types import ConfigError
from localizer_ros.training.batches import SharedBatches


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_every_batch(processes: int) -> None:
    def share(rank: int, processes: int, epoch: int) -> list[list[int]]:
        batches = SharedBatches(29, 8, 5, rank, processes)
        batches.epoch = epoch
        return list(batches)

    shares = [share(rank, processes, 4) for rank in range(processes)]
    assert {len(share) for share in shares} == {3}
    batches = [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]
    whole = [sorted(batch) for batch in share(0, 1, 4)]
    assert batches == whole
    # Numbers of epoch 4, each at most once, in another order than those of epoch 5.
    assert all(len(batch) == 8 for batch in whole) and len(set(chain(*whole))) == 24
    assert set(chain(*whole)) <= set(range(4 * 29, 5 * 29))
    assert [sorted(n - 29 for n in batch) for batch in share(0, 1, 5)] != whole
    with pytest.raises(ConfigError, match="batches of 8 for 9 processes"):
        SharedBatches(29, 8, 5, 0, 9)
