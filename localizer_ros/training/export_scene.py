"""Engine of a back end for the network of a scene, in any precision, checked against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import BackendError, Camera, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import check_parity
from localizer_ros.inference.engine_cache import ENGINES, forget_unused
from localizer_ros.inference.model_card import ModelCard, card_path, read_card, variant_name
from localizer_ros.inference.network_step import MOTION
from localizer_ros.inference.open_backend import network_card, require_precision
from localizer_ros.inference.tensorrt_library import open_library
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene, check_writable
from localizer_ros.training.lower_precision import lower_precision
from localizer_ros.training.precision_gate import open_gate

# Images that an engine in single precision is checked on: of a recording, or of blurred noise where none is given.
_RECORDED_IMAGES, _NOISE_IMAGES = 16, 8
_A_COPY = "export a copy of the scene"


@dataclass(frozen=True)
class ExportResult:
    """A checked engine.

    Attributes:
        t_m: largest difference to PyTorch in position, metres.
        r_deg: largest difference in orientation, degrees.
        files: what a robot needs to run it. What OpenVINO has compiled is not among them: it is tied to where the
            scene lies, and a robot compiles it in a second.
        card: of the network in another precision than fp32; holds these figures, too.
    """

    t_m: float
    r_deg: float
    files: list[Path]
    card: ModelCard | None


def export_scene(
    scene: Scene,
    backend: str,
    config: BackendConfig,
    source: FrameSource | None,
    progress: Progress = no_progress,
) -> ExportResult:
    """The engine of a back end for the pose network of a scene, built and checked against PyTorch.

    For a precision other than fp32 a network of it is written beside the scene's, with a card that says what it costs
    and how far each back end that was checked is from PyTorch.

    Args:
        scene: with a pose network.
        backend: name of a back end, or onnx for the file alone, which OpenVINO checks.
        config: how it is run: precision, and that back end.
        source: in lower precision the recording that was mapped; otherwise one whose first frames are run, or None for
            noise images.
        progress: told as it goes.

    Raises:
        SceneError: the scene has no pose network, was mapped from another recording, or cannot be written to.
        SourceError: the recording cannot be read.
        BackendError: the back end cannot run here, a lower precision lacks its recording, or answers differ from
            PyTorch's by more than they may.
    """
    folder = scene.path / NETWORKS_FOLDER
    path = card_path(folder, scene.method)
    if not path.is_file():
        raise SceneError(f"{scene.path}: a {scene.method} scene has no pose network to export")
    if backend != "onnx":
        require_precision(backend, config.precision)
    # What is missing is said before what takes minutes.
    if backend == "tensorrt":
        open_library(config.lean)
        check_writable(scene.path / ENGINES, _A_COPY)
    if config.precision != "fp32":
        check_writable(folder, _A_COPY)
    if config.precision == "fp32":
        t_m, r_deg = check_parity(folder, scene.method, config, _network_images(folder, scene.method, source))
        forget_unused(folder)
        return ExportResult(t_m, r_deg, _files(scene, backend, config), None)
    if source is None:
        raise BackendError(
            f"{backend} {config.precision}: what lower precision costs is judged by images of the scene; give the "
            "recording that was mapped with --source"
        )
    return _export_in_lower_precision(scene, backend, config, source, progress)


def _export_in_lower_precision(
    scene: Scene, backend: str, config: BackendConfig, source: FrameSource, progress: Progress
) -> ExportResult:
    gate = open_gate(scene, source, progress)
    folder = gate.folder
    name = variant_name(scene.method, config.precision)
    known = read_card(card_path(folder, name), ModelCard) if card_path(folder, name).is_file() else None
    written = lower_precision(gate, config.precision, progress)
    forget_unused(folder)
    # The file itself is run in the arithmetic that it asks for.
    answers = (
        gate.answers(name, BackendConfig(kind="openvino"))
        if backend == "onnx"
        else gate.answers(scene.method, config)
    )
    verdict = gate.verdict(answers, config.precision)
    if verdict.worse:
        raise BackendError(
            f"{backend} {config.precision}: differs from torch by {verdict.t_m:.4f} m and {verdict.r_deg:.3f} deg on "
            f"{len(gate.judged)} images, too much of what the network errs by: {', '.join(verdict.worse)}; use fp32"
        )
    others = known.parity if known is not None and known.sha256 == written.sha256 else {}
    parity = {**others, backend: (float(f"{verdict.t_m:.4g}"), float(f"{verdict.r_deg:.4g}"))}
    card = msgspec.structs.replace(written, parity=parity)
    card.write(card_path(folder, name))
    return ExportResult(verdict.t_m, verdict.r_deg, _files(scene, backend, config), card)


def _files(scene: Scene, backend: str, config: BackendConfig) -> list[Path]:
    """What a robot needs to run an engine, and the engine."""
    folder = scene.path / NETWORKS_FOLDER
    suffix = "safetensors" if backend == "torch" else "onnx"
    variant = variant_name(scene.method, config.precision)
    files: list[Path] = []
    for name in (scene.method, variant, MOTION):
        if card_path(folder, name).is_file():
            weights = folder / f"{name}.{suffix}"
            files += [card_path(folder, name), *([weights] if weights.is_file() else [])]
    if backend == "tensorrt":
        files += _engines(scene.path, scene.method, config)
    return files


def _engines(scene: Path, method: str, config: BackendConfig) -> list[Path]:
    """The engines of TensorRT that run a network, and the motion network beside it, on this machine."""
    # Late: only where TensorRT is wanted must it be there.
    from localizer_ros.inference.tensorrt_backend import engine_file

    library, folder = open_library(config.lean), scene / NETWORKS_FOLDER
    wanted = {method: config, MOTION: msgspec.structs.replace(config, precision="fp32")}
    return [
        scene / ENGINES / engine_file(library, network_card(folder, name, "tensorrt", each.precision), each)
        for name, each in wanted.items()
        if card_path(folder, name).is_file()
    ]


def _network_images(folder: Path, name: str, source: FrameSource | None) -> NDArray[np.float32]:
    """(N, 3, h, w) inputs of a network: the first frames of a recording, or blurred noise."""
    card = read_card(card_path(folder, name), ModelCard)
    preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
    if source is not None:
        frames = [source.read(index) for index in range(min(_RECORDED_IMAGES, len(source.records)))]
        return np.concatenate([preprocess(frame.image, frame.camera) for frame in frames])
    rng = np.random.default_rng(0)
    shape = (preprocess.target.height_px, preprocess.target.width_px, 3)
    noise = [
        cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 4.0) for _ in range(_NOISE_IMAGES)
    ]
    return np.concatenate([preprocess.normalize(np.asarray(image, np.uint8)) for image in noise])
