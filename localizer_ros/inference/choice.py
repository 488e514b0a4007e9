"""What ``backend.kind: auto`` means: the only back end there is, or the fastest of several, measured once.

Which ones are tried rests on what was measured before: on an x86 CPU OpenVINO took a quarter to a third of PyTorch's
time (ResNet-18 and 34, two cores, fp32), so PyTorch, whose import alone takes seconds, is only tried beside a GPU, on
other processors, or where there is nothing else. Each is tried in a process of its own, so that none leaves its memory,
or a crash, behind. The times lie in the scene's ``engines``, which may be deleted at any time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.config.schema import config_to_dict
from localizer_ros.core.types import BackendError
from localizer_ros.inference.engine_cache import engine_folder, engine_folders, engine_key
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.processor import cpu_name, has_gpu

logger = logging.getLogger(__name__)

TIMES = "backend_times.json"
"""File of the measured times, in the scene's ``engines``."""

KINDS = ("tensorrt", "openvino", "torch")
_TIMER = "localizer_ros.inference.time_backend"
# An engine of TensorRT is built in this time, which takes minutes on a small board.
_PATIENCE_S = 1800.0
_PACKAGES = ("tensorrt", "tensorrt_lean", "openvino", "torch")


def automatic_backend(folder: Path, name: str, config: BackendConfig) -> str:
    """The back end that ``kind: auto`` means for a network on this machine.

    Args:
        folder: of the networks of a scene.
        name: of the network.
        config: precision and threads.

    Raises:
        BackendError: no back end is installed, or none can run the network.
    """
    kinds = candidates(config.precision)
    if not kinds:
        raise BackendError("backend: none of tensorrt, openvino and torch is installed")
    if len(kinds) == 1:
        return kinds[0]
    times = _known_times(folder, name, config)
    if times is None:
        times = {kind: _measured_apart(folder, name, config, kind) for kind in kinds}
        _keep(folder, name, config, times)
    fast = {kind: value for kind, value in times.items() if isinstance(value, float)}
    if not fast:
        raise BackendError("; ".join(str(value) for value in times.values()))
    return min(fast, key=lambda kind: fast[kind])


def candidates(precision: str) -> list[str]:
    """Back ends worth trying on this machine for a precision, without importing any."""
    installed = {name for name in _PACKAGES if importlib.util.find_spec(name) is not None}
    found = []
    if installed & {"tensorrt", "tensorrt_lean"} and has_gpu():
        found.append("tensorrt")
    if "openvino" in installed:
        found.append("openvino")
    slower = "openvino" in installed and platform.machine() in ("x86_64", "AMD64") and not has_gpu()
    if "torch" in installed and precision != "int8" and not slower:
        found.append("torch")
    return found


def _machine(card: ModelCard, config: BackendConfig) -> str:
    """Key of everything that times depend on."""
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    threads = f"{config.threads} of {os.cpu_count()}"
    return engine_key(card.sha256, config.precision, threads, cpu_name(), str(has_gpu()), *versions)


def _known_times(folder: Path, name: str, config: BackendConfig) -> dict[str, Any] | None:
    """What was measured before on this machine; None when nothing was, or the file is of no use."""
    machine = _machine(read_card(card_path(folder, name), ModelCard), config)
    for engines in engine_folders(folder):
        try:
            entry = json.loads((engines / TIMES).read_text())[machine]
            times = {kind: entry[kind] for kind in candidates(config.precision)}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if any(isinstance(value, float) for value in times.values()):
            return times
    return None


def _keep(folder: Path, name: str, config: BackendConfig, times: dict[str, Any]) -> None:
    """Write times beside those of other networks and settings, and say what they decide."""
    path = engine_folder(folder) / TIMES
    told = ", ".join(
        f"{kind} {v:.1f} ms" if isinstance(v, float) else f"{kind} not ({v})" for kind, v in times.items()
    )
    logger.info("backend.kind auto, measured once on %s: %s", name, told)
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    card = read_card(card_path(folder, name), ModelCard)
    known = {**(known if isinstance(known, dict) else {}), _machine(card, config): times}
    try:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(path)
    except OSError as error:
        logger.warning("%s: cannot be written (%s); measured again at every start", path, error.strerror)


def _measured_apart(folder: Path, name: str, config: BackendConfig, kind: str) -> float | str:
    """Milliseconds of a run, measured in another process; what is wrong where there are none."""
    wanted = msgspec.structs.replace(config, kind=kind)
    command = [sys.executable, "-m", _TIMER, str(folder), name, json.dumps(config_to_dict(wanted))]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{kind}: took more than {_PATIENCE_S:.0f} s to start"
    lines = answer.stdout.strip().splitlines()
    if answer.returncode != 0 or not lines:
        return f"{kind}: its process ended with {answer.returncode}"
    try:
        return float(lines[-1])
    except ValueError:
        return lines[-1]
