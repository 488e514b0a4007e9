"""Recording to PoseNet scene: read, train, calibrate, export, check."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.stats import chi2

from localizer_ros.core.config import BackendConfig, MapConfig
from localizer_ros.core.preprocess import Preprocessor, network_camera
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import check_parity, descriptor_card, posenet_card, save_network
from localizer_ros.localization.baseline import save_baseline
from localizer_ros.localization.structure_scene import StructureScene
from localizer_ros.mapping.sfm import build_structure_map
from localizer_ros.networks.backbones import (
    Encoder,
    encoder_of_weights,
    freeze_batch_norms,
    has_folded_norms,
    load_encoder,
)
from localizer_ros.networks.build import build_network
from localizer_ros.networks.posenet import PoseNet
from localizer_ros.training.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PairDataset,
    PosedImages,
    hold_out,
    load_posed_images,
)
from localizer_ros.training.posenet_training import (
    PosenetTraining,
    added_motions,
    initialize_scale,
    predict,
    residuals,
)
from localizer_ros.training.train import TrainingResult, train
from localizer_ros.training.virtual_views import SceneDepth, scene_depth

logger = logging.getLogger(__name__)

# Frames over which the spread of motions is calibrated.
MOTION_WINDOW = 10


@dataclass(frozen=True)
class LoadedWeights:
    """Encoder weights of a file and what they ask of the network."""

    encoder: str
    stride_padding: str
    tensors: dict[str, torch.Tensor]


def load_weights(path: Path, wanted: str) -> LoadedWeights:
    """Read torchvision-named encoder weights from a safetensors file.

    Args:
        path: the file.
        wanted: name of the encoder, or ``auto`` to take the one they fit.

    Raises:
        ConfigError: not a safetensors file, or it fits no encoder, or not the wanted one.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file ({error})") from error
    fits = encoder_of_weights(tensors)
    if fits is None:
        raise ConfigError(f"{path}: the keys fit none of the encoders")
    if wanted not in ("auto", fits):
        raise ConfigError(f"{path}: holds weights of {fits}, but network.encoder is {wanted}")
    return LoadedWeights(fits, "same" if has_folded_norms(tensors) else "symmetric", tensors)


def build_posenet(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    resume: bool,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train a PoseNet on every posed frame of ``source`` and write it to ``folder/networks``.

    Args:
        source: the recording, already cut to the part to train on.
        config: the whole tree.
        weights: encoder weights to start from, None to start from nothing.
        folder: scene folder being written.
        work: folder for checkpoints; kept when interrupted.
        resume: go on from ``work``.
        progress: told as it goes.

    Returns:
        What the manifest records: accuracy on the validation part, parity of the back ends, training facts.
    """
    n = config.network
    camera = network_camera(source.camera, n.width_px, n.height_px)
    data = load_posed_images(source, camera, progress)
    if config.training.augmentation.virtual_move > 0.0:
        data = replace(data, depth=_depth(source, config, data, work, progress))
    kept, held = hold_out(len(data), config.training.validation_fraction)
    training_part, validation_part = data.subset(kept), data.subset(held)

    torch.manual_seed(config.training.seed)
    loaded = None if weights is None else load_weights(weights, n.encoder)
    spec: dict[str, Any] = {
        "family": "posenet",
        "encoder": loaded.encoder if loaded else ("mobilenet_v2" if n.encoder == "auto" else n.encoder),
        "stride_padding": loaded.stride_padding if loaded else n.stride_padding,
        "width_px": n.width_px,
        "height_px": n.height_px,
        "hidden": n.hidden,
        "dropout": n.dropout,
    }
    network = build_network(spec)
    assert isinstance(network, PoseNet)
    encoder: Encoder = network.encoder
    if loaded is not None:
        load_encoder(encoder, loaded.tensors)
        # Statistics of batches of few, similar images would destroy what the weights know.
        freeze_batch_norms(encoder)
        if n.freeze_fine:
            encoder.fine_layers().requires_grad_(False)
    initialize_scale(network, training_part)
    module = PosenetTraining(network, config.posenet, IMAGENET_MEAN, IMAGENET_STD)
    result = train(
        module,
        encoder,
        PairDataset(
            training_part, config.posenet.pair_stride, config.training.augmentation, config.training.seed
        ),
        config.training,
        work,
        (lambda average: _validate(average, validation_part)) if len(held) > 1 else None,
        resume,
        progress,
    )
    # Without a validation part the spreads can only be scaled on what was trained on: too optimistic, but finite.
    measured_on = validation_part if len(held) > 1 else training_part
    sigma_scale, accuracy = _calibrate(module, measured_on)
    networks = folder / "networks"
    networks.mkdir()
    progress("exporting", 0, 3)
    save_network(
        network,
        networks,
        posenet_card(
            spec,
            camera,
            network.state_shape,
            encoder.coarse_channels,
            IMAGENET_MEAN,
            IMAGENET_STD,
            sigma_scale,
        ),
    )
    normalize = Preprocessor(camera, IMAGENET_MEAN, IMAGENET_STD).normalize
    some = np.concatenate([normalize(image) for image in measured_on.images[:8]])
    parity_m, parity_deg = check_parity(networks, "posenet", BackendConfig(kind="openvino"), some)
    progress("exporting", 1, 3)
    _write_baseline(networks, spec, loaded, encoder, data, progress)
    shutil.copy(work / "training.csv", folder / "training.csv")
    progress("exporting", 3, 3)
    return {
        "accuracy": {
            "part": "validation" if len(held) > 1 else "training",
            "frames": len(measured_on),
            **accuracy,
        },
        "parity": {"openvino_fp32": {"t_m": parity_m, "r_deg": parity_deg}},
        "learning": _learning_facts(result, len(training_part)),
        "baseline": f"{spec['encoder']} {'as loaded' if loaded else 'as trained'}",
    }


def _depth(
    source: FrameSource, config: MapConfig, data: PosedImages, work: Path, progress: Progress
) -> SceneDepth | None:
    """Depth of the images from a map of points; None, with a warning, where no map can be made."""
    folder = work / "structure"
    try:
        if not (folder / "map").is_dir():
            folder.mkdir(exist_ok=True)
            build_structure_map(source, config.structure, folder, progress, work / "structure_work")
        return scene_depth(StructureScene.open(folder), data.camera, data.poses, progress)
    except LocalizerError as error:
        logger.warning("training views are turned but not moved: no map of points could be made (%s)", error)
        return None


def _learning_facts(result: TrainingResult, frames: int) -> dict[str, Any]:
    return {
        "frames": frames,
        "epochs": result.epochs,
        "minutes": round(result.minutes, 2),
        "stopped": result.stopped,
    }


def _validate(module: torch.nn.Module, data: PosedImages) -> dict[str, float]:
    assert isinstance(module, PosenetTraining)
    errors = residuals(predict(module, data), data)
    errors_m = np.linalg.norm(errors.absolute_N6[:, 3:], axis=1)
    errors_deg = np.degrees(np.linalg.norm(errors.absolute_N6[:, :3], axis=1))
    return {
        "median_t_m": float(np.median(errors_m)),
        "median_r_deg": float(np.median(errors_deg)),
        # Twice as good in one of the two counts the same, whatever the scene's size. Means, as the median of a small
        # validation part jumps from one epoch to the next.
        "score": float(np.log(np.mean(errors_m)) + np.log(np.mean(errors_deg))),
        **_motion_figures(errors.motion_M6),
    }


def _motion_figures(motion_M6: NDArray[np.float64]) -> dict[str, float]:
    if not len(motion_M6):
        return {}
    return {
        "vo_t_m": float(np.mean(np.linalg.norm(motion_M6[:, 3:], axis=1))),
        "vo_r_deg": float(np.degrees(np.mean(np.linalg.norm(motion_M6[:, :3], axis=1)))),
    }


def _calibrate(
    module: PosenetTraining, data: PosedImages
) -> tuple[tuple[float, float, float, float], dict[str, float]]:
    """Factors that bring the median normalised squared error to that of a 3-dimensional Gaussian, and the errors.

    Motions are measured over several frames, added up as independent: their errors are mostly the same from one frame
    to the next, and what the smoother needs is an honest sum.
    """
    outputs = predict(module, data)
    errors = residuals(outputs, data)
    target = float(chi2.median(3))
    scales = []
    for error, variance in (
        (errors.absolute_N6, np.exp(2.0 * outputs["log_sigma"])),
        added_motions(outputs, data, MOTION_WINDOW),
    ):
        for part in (slice(0, 3), slice(3, 6)):
            normalized = (np.square(error[:, part]) / variance[:, part]).sum(1)
            scales.append(float(np.sqrt(np.median(normalized) / target)) if len(normalized) else 1.0)
    figures = {k: v for k, v in _validate(module, data).items() if k != "score"}
    a, b, c, d = (max(scale, 1e-3) for scale in scales)
    return (a, b, c, d), figures


def _write_baseline(
    networks: Path,
    spec: dict[str, Any],
    loaded: LoadedWeights | None,
    trained: Encoder,
    data: PosedImages,
    progress: Progress,
) -> None:
    descriptor_spec = {"family": "descriptor", **{k: spec[k] for k in ("encoder", "stride_padding")}}
    network = build_network(descriptor_spec).eval()
    encoder = network.encoder
    assert isinstance(encoder, torch.nn.Module)
    if loaded is not None:
        load_encoder(encoder, loaded.tensors)
    else:
        encoder.load_state_dict(trained.state_dict())
    save_network(
        network,
        networks,
        descriptor_card(descriptor_spec, data.camera, trained.coarse_channels, IMAGENET_MEAN, IMAGENET_STD),
    )
    normalize = Preprocessor(data.camera, IMAGENET_MEAN, IMAGENET_STD).normalize
    rows = []
    with torch.inference_mode():
        for row, image in enumerate(data.images):
            rows.append(network(torch.from_numpy(normalize(image))).descriptor_BC[0].numpy())
            progress("baseline", row + 1, len(data))
    save_baseline(networks, np.stack(rows), data.poses, data.names)
