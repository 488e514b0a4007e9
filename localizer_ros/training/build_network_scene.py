"""Recording to a scene with a network: read, train, calibrate, export, check."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from localizer_ros.core.config import BackendConfig, MapConfig
from localizer_ros.core.preprocess import Preprocessor, network_camera
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import ConfigError, LocalizerError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import check_parity, descriptor_card, save_network, stream_card
from localizer_ros.inference.backend import TensorSpec
from localizer_ros.inference.network_step import MOTION
from localizer_ros.localization.baseline import save_baseline
from localizer_ros.localization.structure_scene import StructureScene
from localizer_ros.mapping.sfm import build_structure_map
from localizer_ros.networks.anchors import AnchorHead
from localizer_ros.networks.backbones import (
    Encoder,
    encoder_of_weights,
    freeze_batch_norms,
    has_folded_norms,
    load_encoder,
)
from localizer_ros.networks.build import build_network
from localizer_ros.networks.heads import PoseHead
from localizer_ros.networks.lsg import SIZES, Lsg
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.networks.posenet import PoseNet
from localizer_ros.networks.scene_coords import SceneCoordinates
from localizer_ros.training.calibration import spread_scales
from localizer_ros.training.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PosedImages,
    ViewSequences,
    hold_out,
    load_posed_images,
)
from localizer_ros.training.memory import keep_freed_memory
from localizer_ros.training.network_training import (
    NetworkTraining,
    initialize_motion,
    motion_scale,
    optics_of,
    position_scale,
    predict,
    residuals,
)
from localizer_ros.training.objectives import (
    AnchorObjective,
    CoordinateObjective,
    GeometricObjective,
    LsgObjective,
    Objective,
    PoseObjective,
)
from localizer_ros.training.processes import leave, open_fabric
from localizer_ros.training.stored_views import StoredSequences, store_views
from localizer_ros.training.train import TrainingResult, train
from localizer_ros.training.virtual_views import SceneDepth, scene_depth

logger = logging.getLogger(__name__)

# Prefix of the encoder's weights in a network of ours.
ENCODER = "encoder."
# What an unanswered frame of the validation part counts as.
FAR_M, FAR_DEG = 2.0, 60.0


@dataclass(frozen=True)
class LoadedWeights:
    """Weights of a file and what they ask of the network.

    Attributes:
        encoder: name of the encoder they fit.
        stride_padding: of its stride-2 convolutions.
        tensors: of the encoder, by torchvision's names.
        others: of the rest of a network of ours, by its names; empty for a file of an encoder alone.
    """

    encoder: str
    stride_padding: str
    tensors: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]


def load_weights(path: Path, wanted: str) -> LoadedWeights:
    """Read encoder weights, torchvision-named or of a network of ours, from a safetensors file.

    Args:
        path: the file.
        wanted: name of the encoder, or ``auto`` to take the one they fit.

    Raises:
        ConfigError: not a safetensors file, or it fits no encoder, or not the wanted one.
    """
    try:
        everything = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file ({error})") from error
    inside = {k.removeprefix(ENCODER): v for k, v in everything.items() if k.startswith(ENCODER)}
    tensors = inside or everything
    fits = encoder_of_weights(tensors)
    if fits is None:
        raise ConfigError(f"{path}: the keys fit none of the encoders")
    if wanted not in ("auto", fits):
        raise ConfigError(f"{path}: holds weights of {fits}, but network.encoder is {wanted}")
    others = {k: v for k, v in everything.items() if not k.startswith(ENCODER)} if inside else {}
    return LoadedWeights(fits, "same" if has_folded_norms(tensors) else "symmetric", tensors, others)


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
    if t.augmentation.virtual_move > 0.0 or geometric or config.method == "scene_coords":
        data = replace(data, depth=_depth(source, config, data, work, fabric, progress))
    kept, held = hold_out(len(data), t.validation_fraction)
    training_part, validation_part = data.subset(kept), data.subset(held)

    torch.manual_seed(t.seed)
    loaded = None if weights is None else load_weights(weights, n.encoder)
    spec, network, objective = make_network(config, loaded, training_part)
    encoder: Encoder = network.encoder
    if loaded is not None:
        start_from(network, loaded, t.fine_tune)
        # Statistics of batches of few, similar images would destroy what the weights know.
        freeze_batch_norms(encoder)
        if n.freeze_fine:
            encoder.fine_layers().requires_grad_(False)
    module = NetworkTraining(network, objective, IMAGENET_MEAN, IMAGENET_STD).to(fabric.device)
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
    blocks = np.split(np.arange(len(held)), np.flatnonzero(np.diff(held) > 1) + 1)
    sigma_scale = spread_scales(
        predict(module, measured_on),
        measured_on,
        blocks if len(held) > 1 else [np.arange(len(training_part))],
    )
    module.cpu()
    networks = folder / "networks"
    networks.mkdir()
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


def make_network(
    config: MapConfig, loaded: LoadedWeights | None, data: PosedImages
) -> tuple[dict[str, Any], nn.Module, Objective]:
    """The untrained network of ``config.method``, told where and how large the scene is, and what it is trained for.

    Returns:
        What ``build_network`` needs to make it again, the network, its objective.

    Raises:
        ConfigError: the settings do not go together.
    """
    n = config.network
    encoder = loaded.encoder if loaded else ("mobilenet_v2" if n.encoder == "auto" else n.encoder)
    spec: dict[str, Any] = {
        "family": config.method,
        "encoder": encoder,
        "stride_padding": loaded.stride_padding if loaded else n.stride_padding,
        "width_px": n.width_px,
        "height_px": n.height_px,
        "head": n.head,
        "hidden": n.hidden,
        "dropout": n.dropout,
    }
    try:
        network, objective = METHODS[config.method](config, spec, data)
    except ValueError as error:
        raise ConfigError(f"network: {error}") from error
    if isinstance(network.motion, MotionHead):
        initialize_motion(network.motion, data)
    return spec, network, objective


def _posenet(config: MapConfig, spec: dict[str, Any], data: PosedImages) -> tuple[nn.Module, Objective]:
    network = build_network(spec)
    assert isinstance(network, PoseNet) and isinstance(network.absolute, PoseHead)
    _set_scale(network.absolute, data)
    if config.posenet.loss != "geometric":
        return network, PoseObjective(config.posenet)
    if data.depth is None:
        raise ConfigError(
            "posenet.loss: geometric needs a map of points of the recording, and none could be made"
        )
    return network, GeometricObjective()


def _anchors(config: MapConfig, spec: dict[str, Any], data: PosedImages) -> tuple[nn.Module, Objective]:
    chosen = data.poses[:: config.anchors.every]
    spec.update(anchors=len(chosen), orientation=config.anchors.orientation, answer=config.anchors.answer)
    network = build_network(spec)
    assert isinstance(network, PoseNet) and isinstance(network.absolute, AnchorHead)
    t = torch.from_numpy(np.stack([T.t for T in chosen]).astype(np.float32))
    q = torch.from_numpy(np.stack([T.quaternion_xyzw() for T in chosen]).astype(np.float32))
    network.absolute.set_anchors(t, q)
    return network, AnchorObjective(config.anchors)


def _lsg(config: MapConfig, spec: dict[str, Any], data: PosedImages) -> tuple[nn.Module, Objective]:
    size = SIZES[config.lsg.size]
    spec.update(
        channels=size.channels,
        memory=config.lsg.memory,
        motion_hidden=size.motion_hidden,
        aligned=config.lsg.odometry == "aligned",
    )
    network = build_network(spec)
    assert isinstance(network, Lsg)
    _set_scale(network.absolute, data)
    network.fused_motion.scale_6.copy_(torch.from_numpy(motion_scale(data, config.training.stride)))
    return network, LsgObjective()


def _scene_coords(config: MapConfig, spec: dict[str, Any], data: PosedImages) -> tuple[nn.Module, Objective]:
    if data.depth is None:
        raise ConfigError("scene_coords: needs a map of points of the recording, and none could be made")
    spec.update(coordinate_width=config.scene_coords.width)
    network = build_network(spec)
    assert isinstance(network, SceneCoordinates)
    centre, scale = position_scale(data)
    # Points lie around the cameras, as far as they see.
    network.coordinates.centre.copy_(torch.from_numpy(centre))
    network.coordinates.scale.fill_(scale + data.depth.median_m)
    return network, CoordinateObjective(optics_of(data))


METHODS: dict[str, Callable[[MapConfig, dict[str, Any], PosedImages], tuple[nn.Module, Objective]]] = {
    "posenet": _posenet,
    "anchors": _anchors,
    "lsg": _lsg,
    "scene_coords": _scene_coords,
}


def _set_scale(head: PoseHead, data: PosedImages) -> None:
    centre, scale = position_scale(data)
    head.centre.copy_(torch.from_numpy(centre))
    head.scale.fill_(scale)


def start_from(network: nn.Module, loaded: LoadedWeights, everything: bool) -> None:
    """Load weights into an untrained network.

    Args:
        network: of :func:`make_network`.
        loaded: weights of its encoder, or of a network of ours.
        everything: go on from that network, heads included; otherwise the head of its family is trained anew, and only
            the motion head starts as another network of the same place left it.

    Raises:
        ConfigError: everything is wanted, and the weights are not those of such a network.
    """
    own = network.state_dict()
    if everything:
        whole = {**{f"{ENCODER}{k}": v for k, v in loaded.tensors.items()}, **loaded.others}
        wrong = [k for k, v in own.items() if k not in whole or whole[k].shape != v.shape] + sorted(
            whole.keys() - own
        )
        if wrong:
            raise ConfigError(
                f"training.fine_tune: the weights are of another network (first difference: {wrong[0]}); method and "
                "network settings must be those it was trained with"
            )
        network.load_state_dict(whole)
        return
    load_encoder(network.encoder, loaded.tensors)
    matching = {
        k: v
        for k, v in loaded.others.items()
        if k.startswith("motion.") and k in own and v.shape == own[k].shape
    }
    network.load_state_dict(matching, strict=False)


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
            return scene_depth(StructureScene.open(folder), data.camera, data.poses, progress)
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
