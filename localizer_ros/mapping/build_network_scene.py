"""Recording to a scene with a network: read, train, calibrate, export, check."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.methods import find_method
from localizer_ros.core.preprocess import Preprocessor, network_camera
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import check_parity, descriptor_card, save_network, stream_card
from localizer_ros.inference.backend import TensorSpec
from localizer_ros.inference.network_step import MOTION
from localizer_ros.localization.learned.out_of_distribution import Familiarity
from localizer_ros.mapping.build_point_map import build_structure_map
from localizer_ros.networks.build import build_network
from localizer_ros.networks.encoders.build import load_encoder
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.scene.map_scene import MapScene
from localizer_ros.scene.nearest_image import save_baseline
from localizer_ros.training.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PosedImages,
    ViewSequences,
    hold_out,
    load_posed_images,
)
from localizer_ros.training.memory import keep_freed_memory
from localizer_ros.training.module import NetworkTraining, optics_of, predict, residuals
from localizer_ros.training.network_setup import set_up_training
from localizer_ros.training.processes import leave, open_fabric
from localizer_ros.training.stored_views import StoredSequences, store_views
from localizer_ros.training.train import TrainingResult, train
from localizer_ros.training.uncertainty import spread_scales
from localizer_ros.training.virtual_views import SceneDepth, scene_depth
from localizer_ros.training.weights import LoadedWeights, load_weights

logger = logging.getLogger(__name__)

# What an unanswered frame of the validation part counts as.
FAR_M, FAR_DEG = 2.0, 60.0


def build_network_scene(
    source: FrameSource,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    resume: bool,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train the network of ``config.method`` on every posed frame of ``source`` and write it to ``folder/networks``.

    Args:
        source: the recording, already cut to the part to train on.
        config: the whole tree.
        weights: encoder weights to start from, None to start from nothing.
        folder: scene folder being written.
        work: folder for checkpoints; kept when interrupted.
        resume: go on from ``work``.
        progress: told as it goes.

    Returns:
        What the manifest records: accuracy on the validation part, parity of the back ends, training facts. Nothing
        in all processes of `torchrun` but the first, which train along and write nothing.

    Raises:
        ConfigError: settings or weights do not go together.
    """
    if config.training.fine_tune and weights is None:
        raise ConfigError(
            "training.fine_tune: needs the network to go on from: --weights SCENE/networks/NAME.safetensors"
        )
    geometric = config.method == "posenet" and config.posenet.loss == "geometric"
    if geometric and not config.training.fine_tune:
        raise ConfigError(
            "posenet.loss: geometric leads nowhere from far off; train with another loss, then go on with "
            "training.fine_tune=true and --weights SCENE/networks/posenet.safetensors"
        )
    fabric = open_fabric(some_unused=config.training.stored_views > 0)
    keep_freed_memory()
    n, t = config.network, config.training
    camera = network_camera(source.camera, n.width_px, n.height_px)
    data = load_posed_images(source, camera, progress)
    if t.augmentation.virtual_move > 0.0 or geometric or find_method(config.method).needs_depth:
        data = replace(data, depth=_depth(source, config, data, work, fabric, progress))
    kept, held = hold_out(len(data), t.validation_fraction)
    training_part, validation_part = data.subset(kept), data.subset(held)

    loaded = None if weights is None else load_weights(weights, n.encoder)
    spec, module = set_up_training(config, loaded, training_part)
    network, objective = module.network, module.objective
    encoder: Encoder = network.encoder
    module.to(fabric.device)
    # Of stored views there are no images to find motions between.
    fewest = 2 if t.stored_views == 0 else 1
    length = max(objective.frames or t.sequence, fewest)
    frames = ViewSequences(training_part, length, t.stride, t.augmentation, t.seed)
    batches: ViewSequences | StoredSequences = frames
    if t.stored_views > 0:
        encoder.requires_grad_(False)
        stored = store_views(encoder, module.normalize, frames, t.stored_views, progress)
        batches = StoredSequences(stored, length, t.stride, t.seed)
    result = train(
        module,
        encoder,
        batches,
        t,
        work,
        (lambda average: _validate(average, validation_part)) if len(held) > 1 else None,
        resume,
        progress,
        fabric,
    )
    leave()
    if fabric.global_rank > 0:
        return {}
    # Without a validation part the spreads can only be scaled on what was trained on: too optimistic, but finite.
    measured_on = validation_part if len(held) > 1 else training_part
    accuracy = {name: value for name, value in _validate(module, measured_on).items() if name != "score"}
    known = predict(module, training_part)
    familiarity = Familiarity.of(known["descriptor"], known["log_sigma"])
    sigma_scale = spread_scales(
        predict(module, measured_on), measured_on, familiarity, objective.tells_hard_frames
    )
    module.cpu()
    networks = folder / "networks"
    networks.mkdir()
    familiarity.save(networks)
    progress("exporting", 0, 3)
    card = stream_card(
        config.method,
        spec,
        network.eval(),
        camera,
        IMAGENET_MEAN,
        IMAGENET_STD,
        sigma_scale,
        optics_of(data).to_dict(),
    )
    save_network(network, networks, card)
    if isinstance(network.motion, MotionHead):
        size_hw = camera.height_px, camera.width_px
        step = MotionStep(network.motion, size_hw).eval()
        depth = TensorSpec("inverse_depth", (1, *(n // 8 for n in size_hw)))
        motion_card = stream_card(
            MOTION,
            {**spec, "family": MOTION},
            step,
            camera,
            IMAGENET_MEAN,
            IMAGENET_STD,
            sigma_scale,
            optics_of(data).to_dict(),
            (depth,),
        )
        save_network(step, networks, motion_card)
    normalize = Preprocessor(camera, IMAGENET_MEAN, IMAGENET_STD).normalize
    some = np.concatenate([normalize(image) for image in measured_on.images[:8]])
    parity_m, parity_deg = check_parity(networks, config.method, BackendConfig(kind="openvino"), some)
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
    source: FrameSource, config: MapConfig, data: PosedImages, work: Path, fabric: Fabric, progress: Progress
) -> SceneDepth | None:
    """Depth of the images from a map of points, which the first process builds; None, with a warning, where none can
    be made."""
    folder = work / "structure"
    problem = ""
    if fabric.global_rank == 0 and not (folder / "map").is_dir():
        folder.mkdir(exist_ok=True)
        try:
            build_structure_map(source, config.structure, folder, progress, work / "structure_work")
        except LocalizerError as error:
            problem = str(error)
    problem = fabric.broadcast(problem)
    if not problem:
        try:
            return scene_depth(MapScene.open(folder), data.camera, data.poses, progress)
        except LocalizerError as error:
            problem = str(error)
    logger.warning("training views are turned but not moved: no map of points could be made (%s)", problem)
    return None


def _learning_facts(result: TrainingResult, frames: int) -> dict[str, Any]:
    return {
        "frames": frames,
        "epochs": result.epochs,
        "minutes": round(result.minutes, 2),
        "stopped": result.stopped,
    }


def _validate(module: torch.nn.Module, data: PosedImages) -> dict[str, float]:
    assert isinstance(module, NetworkTraining)
    errors = residuals(predict(module, data), data)
    errors_m = np.linalg.norm(errors.absolute_N6[:, 3:], axis=1)
    errors_deg = np.degrees(np.linalg.norm(errors.absolute_N6[:, :3], axis=1))
    answered = np.isfinite(errors_m)
    # No answer counts as far off, so that a network is not kept for saying little.
    errors_m, errors_deg = np.where(answered, errors_m, FAR_M), np.where(answered, errors_deg, FAR_DEG)
    return {
        "answered": float(answered.mean()),
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
