"""Posed images to the networks of a scene: train, calibrate, export, check."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.config.training import TrainingConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.progress import Progress
from localizer_ros.export import check_parity, descriptor_card, save_network, stream_card
from localizer_ros.inference.engine_cache import ENGINES
from localizer_ros.inference.model_card import TensorSpec
from localizer_ros.inference.network_step import MOTION
from localizer_ros.localization.learned.out_of_distribution import TrainingDistribution
from localizer_ros.networks.build import build_network
from localizer_ros.networks.descriptor import GlobalDescriptor
from localizer_ros.networks.encoders.build import load_encoder
from localizer_ros.networks.encoders.layers import IMAGENET_MEAN, IMAGENET_STD, Encoder
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.scene.nearest_image import nearest_image_errors, save_baseline
from localizer_ros.training.data import PosedImages, ViewSequences, hold_out
from localizer_ros.training.module import NetworkTraining
from localizer_ros.training.network_setup import refined_camera_of, set_up_training
from localizer_ros.training.runtime import close_processes
from localizer_ros.training.stored_views import StoredSequences, store_views
from localizer_ros.training.train import HISTORY, TrainingResult, Validate, train
from localizer_ros.training.uncertainty import sigma_scales
from localizer_ros.training.validation import accuracy, predict
from localizer_ros.training.weights import LoadedWeights, load_weights

# Images that the back ends are compared on.
_PARITY_IMAGES = 8


def train_network_scene(
    data: PosedImages,
    config: MapConfig,
    weights: Path | None,
    folder: Path,
    work: Path,
    fabric: Fabric,
    progress: Progress,
) -> dict[str, Any]:
    """Facts for the manifest: accuracy on the validation part, parity of the back ends, training facts.

    The network of ``config.method`` is trained and written to ``folder/networks``. In all processes of `torchrun` but
    the first, which train along and write nothing, there are no facts.

    Args:
        data: every posed frame of the part to train on.
        config: the whole tree.
        weights: encoder weights to start from, None to start from nothing.
        folder: scene folder being written.
        work: folder for checkpoints; kept when interrupted.
        fabric: of :func:`localizer_ros.training.runtime.open_fabric`.
        progress: told as it goes.

    Raises:
        ConfigError: settings or weights do not go together.
        NumericalError: the training diverged.
    """
    kept, held = hold_out(len(data), config.training.validation_fraction)
    training_part, validation_part = data.subset(kept), data.subset(held)
    validates = len(held) > 1
    loaded = None if weights is None else load_weights(weights, config.network.encoder)
    spec, module = set_up_training(config, loaded, training_part)
    module.to(fabric.device)
    batches = _batches(module, training_part, config.training, progress)
    validate = _validator(validation_part) if validates else None
    result = train(module, batches, config.training, work, validate, progress, fabric)
    close_processes()
    if fabric.global_rank > 0:
        return {}
    networks = folder / "networks"
    networks.mkdir()
    # Without a validation part sigmas can only be scaled on what was trained on: too optimistic, but finite.
    measured_on = validation_part if validates else training_part
    figures, scales = _calibrate(networks, module, training_part, measured_on)
    progress("exporting", 0, 3)
    _write_networks(networks, config.method, spec, module, data, scales)
    parity_m, parity_deg = _parity(networks, config.method, measured_on)
    progress("exporting", 1, 3)
    descriptors = _write_baseline(networks, spec, loaded, module.encoder, data, progress)
    if validates:
        figures["nearest_image"] = nearest_image_errors(descriptors, data.poses, kept, held)
    shutil.copy(work / HISTORY, folder / HISTORY)
    progress("exporting", 3, 3)
    part = "validation" if validates else "training"
    return {
        "accuracy": {"part": part, "frames": len(measured_on), **figures},
        "parity": {"openvino_fp32": {"t_m": parity_m, "r_deg": parity_deg}},
        "learning": _learning(result, len(training_part)),
        "baseline": f"{spec['encoder']} {'as loaded' if loaded else 'as trained'}",
    }


def _validator(data: PosedImages) -> Validate:
    def validate(average: torch.nn.Module) -> dict[str, float]:
        assert isinstance(average, NetworkTraining)
        return accuracy(predict(average, data), data)

    return validate


def _learning(result: TrainingResult, frames: int) -> dict[str, Any]:
    return {
        "frames": frames,
        "epochs": result.epochs,
        "minutes": round(result.minutes, 2),
        "stopped": result.stopped,
    }


def _batches(
    module: NetworkTraining, data: PosedImages, config: TrainingConfig, progress: Progress
) -> ViewSequences | StoredSequences:
    """What is trained on: rendered anew in each epoch, or stored views."""
    # Of stored views there are no images to find motions between.
    fewest = 2 if config.stored_views == 0 else 1
    length = max(module.objective.frames or config.sequence, fewest)
    frames = ViewSequences(data, length, config.stride, config.augmentation, config.seed)
    if config.stored_views == 0:
        return frames
    module.encoder.requires_grad_(False)
    stored = store_views(module.encoder, module.normalize, frames, config.stored_views, progress)
    return StoredSequences(stored, length, config.stride, config.seed)


def _calibrate(
    networks: Path, module: NetworkTraining, training_part: PosedImages, measured_on: PosedImages
) -> tuple[dict[str, Any], tuple[float, float, float, float]]:
    """Accuracy of a trained network, and the factors of its sigmas, after what it was trained on has been written."""
    predicted, known = predict(module, measured_on), predict(module, training_part)
    trained_on = TrainingDistribution.of(known.descriptor, known.log_sigma)
    trained_on.save(networks)
    scales = sigma_scales(predicted, measured_on, trained_on, module.objective.calibrated_sigma)
    figures: dict[str, Any] = dict(accuracy(predicted, measured_on))
    del figures["score"]
    return figures, scales


def _write_networks(
    networks: Path,
    method: str,
    spec: dict[str, Any],
    module: NetworkTraining,
    data: PosedImages,
    scales: tuple[float, float, float, float],
) -> None:
    """Write the trained network, and its motion head as a network of its own."""
    network = module.cpu().network.eval()
    camera, refined_camera = data.camera, refined_camera_of(data).to_dict()
    card = stream_card(method, spec, network, camera, scales, refined_camera)
    save_network(network, networks, card)
    if network.motion is None:
        return
    size_hw = camera.height_px, camera.width_px
    step = MotionStep(network.motion, size_hw).eval()
    depth = TensorSpec("inverse_depth", (1, size_hw[0] // 8, size_hw[1] // 8))
    motion_spec = {**spec, "family": MOTION}
    save_network(
        step, networks, stream_card(MOTION, motion_spec, step, camera, scales, refined_camera, (depth,))
    )


def _parity(networks: Path, method: str, data: PosedImages) -> tuple[float, float]:
    """Largest difference (metres, degrees) of OpenVINO to PyTorch."""
    normalize = Preprocessor(data.camera, IMAGENET_MEAN, IMAGENET_STD).normalize
    some = np.concatenate([normalize(image) for image in data.images[:_PARITY_IMAGES]])
    apart = check_parity(networks, method, BackendConfig(kind="openvino"), some)
    # What OpenVINO compiled is tied to where the network lies, and a scene moves when it is whole.
    shutil.rmtree(networks.parent / ENGINES, ignore_errors=True)
    return apart


def _write_baseline(
    networks: Path,
    spec: dict[str, Any],
    loaded: LoadedWeights | None,
    trained: Encoder,
    data: PosedImages,
    progress: Progress,
) -> NDArray[np.float32]:
    """(N, C) descriptors of all training images, written together with the network by which the nearest is found."""
    descriptor_spec = {"family": "descriptor", **{k: spec[k] for k in ("encoder", "stride_padding")}}
    network = build_network(descriptor_spec).eval()
    assert isinstance(network, GlobalDescriptor)
    if loaded is not None:
        load_encoder(network.encoder, loaded.tensors)
    else:
        network.encoder.load_state_dict(trained.state_dict())
    save_network(network, networks, descriptor_card(descriptor_spec, data.camera, trained.coarse_channels))
    normalize = Preprocessor(data.camera, IMAGENET_MEAN, IMAGENET_STD).normalize
    rows = []
    with torch.inference_mode():
        for row, image in enumerate(data.images):
            rows.append(network(torch.from_numpy(normalize(image))).descriptor_BC[0].numpy())
            progress("baseline", row + 1, len(data))
    descriptors = np.stack(rows)
    save_baseline(networks, descriptors, data.poses, data.names)
    return descriptors
