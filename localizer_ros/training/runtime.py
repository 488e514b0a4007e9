"""What a training needs of the machine: one process or several that `torchrun` started, memory that is kept, and signal
handlers and threads as they were when it is over."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import cv2
import lightning_fabric
import torch
from lightning_fabric.strategies.ddp import DDPStrategy

from localizer_ros.inference.processor import has_native_bf16

# The others wait while the first builds a map of points or validates.
_PATIENCE = timedelta(hours=24)
# Of mallopt(3): glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30


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


def trains_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a training computes in bfloat16.

    Args:
        precision: as set: auto, fp32 or bf16.
        device: of the training.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_native_bf16()


def close_processes() -> None:
    """End the connection between the processes, where there is one; each goes its own way from here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def keep_freed_memory() -> None:
    """Let the process keep memory it has freed, up to 1 GB a piece, for what it allocates next.

    By default glibc returns every large block to the kernel when it is freed and asks for a new one, zeroed page by
    page, for the next tensor: at tens of megabytes each, thousands of times a minute, that takes longer than the
    arithmetic on them, a third of a training step's time on a CPU. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def child_signals_restored() -> Iterator[None]:
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
def images_on_one_core() -> Iterator[None]:
    """Keep OpenCV to one core: the training itself needs the others.

    Set here and not in the process that renders: OpenCV's threads do not survive the fork, and taking them down there
    waits for ever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
