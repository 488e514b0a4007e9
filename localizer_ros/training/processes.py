"""One process, or several that `torchrun` has started and that train one network together."""

from __future__ import annotations

import os
from datetime import timedelta

import lightning_fabric
import torch
from lightning_fabric.strategies import DDPStrategy

# The others wait while the first builds a map of points or validates.
_PATIENCE = timedelta(hours=24)


def open_fabric(some_unused: bool = False) -> lightning_fabric.Fabric:
    """Fabric of this process alone, or of all processes of `torchrun`; returns when all of them are there.

    It computes in fp32: Fabric's own mixed precision would round the batch's poses to half precision on their way in.
    Without `torchrun` it takes one device, also where there are several: what happens on others must be asked for.

    Args:
        some_unused: there are parameters that are trained in some steps or never, as the motion head's without images.
    """
    if not torch.distributed.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        fabric = lightning_fabric.Fabric(devices=1, precision="32-true")
    else:
        on_this_machine = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = lightning_fabric.Fabric(
            devices=on_this_machine,
            num_nodes=int(os.environ["WORLD_SIZE"]) // on_this_machine,
            strategy=DDPStrategy(timeout=_PATIENCE, find_unused_parameters=some_unused),
            precision="32-true",
        )
    fabric.launch()
    return fabric


def leave() -> None:
    """End the connection between the processes, where there is one; each goes its own way from here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
