"""Time of a run of a network on a back end; a program of its own, see ``choice``.

python -m localizer_ros.inference.time_backend FOLDER NETWORK SETTINGS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import LocalizerError
from localizer_ros.inference.open_backend import open_backend

_WARM_UP, _RUNS = 3, 15


def milliseconds(folder: Path, name: str, config: BackendConfig) -> float:
    """Median time of a run of a network. Raises BackendError, SceneError."""
    backend = open_backend(folder, name, config)
    rng = np.random.default_rng(0)
    given = {
        spec.name: rng.normal(0.0, 1.0, spec.shape).astype(np.float32)
        for spec in backend.card.inputs
        if spec.name not in backend.card.states
    }
    times = []
    for _ in range(_WARM_UP + _RUNS):
        began = time.perf_counter()
        backend.run(given)
        times.append(time.perf_counter() - began)
    backend.close()
    return 1e3 * float(np.median(times[_WARM_UP:]))


def main(folder: str, name: str, settings: str) -> None:
    """Print the time, or in one line what is wrong."""
    try:
        print(milliseconds(Path(folder), name, config_from_dict(BackendConfig, json.loads(settings))))
    except LocalizerError as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
