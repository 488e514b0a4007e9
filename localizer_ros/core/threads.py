"""How many threads the libraries have that a frame goes through, told in one place.

Linear algebra (BLAS, OpenMP) has one: its matrices are small here, and threads that wait for each other in a loop take
the cores from the network and from the work beside the frames. Images (OpenCV) and networks (OpenVINO, PyTorch) have
those of the setting ``backend.threads``. Mapping and training do not call this: what they multiply is large.
"""

from __future__ import annotations

import os

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What OpenBLAS, OpenMP and MKL read from the environment when they are loaded, and never again."""


def one_thread_for_linear_algebra() -> None:
    """Tell BLAS and OpenMP, which must not be loaded yet: NumPy loads the first. What a user has set stays."""
    for name, one in ONE_THREAD.items():
        os.environ.setdefault(name, one)


def cores(threads: int) -> int:
    """How many threads a number of them means: 0 is one for each core that this process may run on."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or available


def share_cores(threads: int) -> None:
    """Tell OpenCV, at any time; 0 as in :func:`cores`. Networks are told when they are opened."""
    # Late: NumPy comes with it.
    import cv2

    cv2.setNumThreads(cores(threads))
