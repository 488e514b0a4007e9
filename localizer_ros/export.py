"""Network to files a robot can run: safetensors, ONNX and a model card, with a parity gate in metres and degrees."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError, Camera, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.backend import ModelCard, TensorSpec, sha256_of
from localizer_ros.inference.network_step import MOTION, NetworkStep
from localizer_ros.scene.bundle import ENGINES, Scene

# Beyond this a back end does not compute the network that was trained. Lower precision may differ more.
PARITY = {"fp32": (1e-3, 0.05), "fp16": (5e-3, 0.25), "bf16": (3e-2, 1.5)}


# Pixels between the two images of a motion that back ends are compared by.
MOVED_PX = 2


def save_network(
    network: nn.Module,
    folder: Path,
    card: ModelCard,
) -> ModelCard:
    """Write NAME.safetensors, NAME.onnx and NAME.json; returns the card with the checksums.

    Args:
        network: in eval mode; ``forward`` takes the card's inputs in order and gives its outputs in order.
        folder: exists.
        card: complete but for the checksums.
    """
    network = network.eval().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    weights, onnx = folder / f"{card.name}.safetensors", folder / f"{card.name}.onnx"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    example = tuple(torch.zeros(spec.shape) for spec in card.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            example,
            str(onnx),
            input_names=[spec.name for spec in card.inputs],
            output_names=[spec.name for spec in card.outputs],
            opset_version=18,
            # The newer exporter takes ten times as long over the many small operations of an alignment, and drops added
            # constants of 1e-8.
            dynamo=False,
        )
    card = msgspec.structs.replace(card, weights_sha256=sha256_of(weights), onnx_sha256=sha256_of(onnx))
    card.write(folder / f"{card.name}.json")
    return card


def stream_card(
    name: str,
    spec: dict[str, Any],
    network: nn.Module,
    camera: Camera,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    sigma_scale: tuple[float, float, float, float],
    refined_camera: dict[str, list[float]],
    also: tuple[TensorSpec, ...] = (),
) -> ModelCard:
    """The card of a network that takes an image and its states, with batch size 1.

    Names are those of the fields of its output, without the suffix that says the shape; the last of them are its
    states, whose inputs are called NAME_prev.

    Args:
        name: of the network.
        spec: what ``build_network`` needs to make it again.
        network: in eval mode; ``state_shapes`` without batch are those of its last outputs.
        camera: ideal pinhole of its image.
        mean: RGB mean of the 0..1 input.
        std: RGB standard deviation of the 0..1 input.
        sigma_scale: see :class:`ModelCard`.
        refined_camera: how the image was taken, see :class:`ModelCard`.
        also: what else it takes, between image and states.
    """
    image = TensorSpec("image", (1, 3, camera.height_px, camera.width_px))
    states = [torch.zeros(1, *shape) for shape in network.state_shapes]
    with torch.no_grad():
        output = network(*(torch.zeros(spec.shape) for spec in (image, *also)), *states)
    outputs = tuple(
        TensorSpec(re.sub(r"_[A-Z][A-Za-z0-9]*$", "", field), tuple(value.shape))
        for field, value in zip(output._fields, output, strict=True)
    )
    carried = outputs[len(outputs) - len(states) :]
    return ModelCard(
        name=name,
        inputs=(image, *also, *(TensorSpec(f"{state.name}_prev", state.shape) for state in carried)),
        outputs=outputs,
        states={f"{state.name}_prev": state.name for state in carried},
        network=spec,
        mean=mean,
        std=std,
        camera=camera.to_dict(),
        sigma_scale=sigma_scale,
        refined_camera=refined_camera,
    )


def descriptor_card(
    network: dict[str, Any],
    camera: Camera,
    channels: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> ModelCard:
    """The card of a global descriptor with batch size 1."""
    return ModelCard(
        name="descriptor",
        inputs=(TensorSpec("image", (1, 3, camera.height_px, camera.width_px)),),
        outputs=(TensorSpec("descriptor", (1, channels)),),
        states={},
        network=network,
        mean=mean,
        std=std,
        camera=camera.to_dict(),
    )


def check_parity(
    folder: Path, name: str, config: BackendConfig, images: NDArray[np.float32]
) -> tuple[float, float]:
    """Largest difference (metres, degrees) of a back end's absolute poses and motions to PyTorch's in fp32.

    Args:
        folder: with the network, and the motion network beside it if it needs one.
        name: of the network; must give ``t`` and ``q``, or ``points``.
        config: the back end to check.
        images: (N, 3, h, w) float32 network inputs, run as a stream.

    Raises:
        BackendError: the difference is above the bound of the precision; names both.
    """
    reference = NetworkStep(folder, name, BackendConfig(kind="torch"))
    candidate = NetworkStep(folder, name, config)
    worst_m = worst_deg = 0.0
    for image in images:
        # Each image, and after it the same moved a little: a motion that is well determined, whatever was learned.
        for moved_px in (0, MOVED_PX):
            moved = np.roll(image, moved_px, 2)[None]
            a, b = (step.run(moved) for step in (reference, candidate))
            pairs = []
            if "points" in a:
                # Coordinates of cells that show nothing known are noise; what counts is the typical cell.
                apart_m = np.linalg.norm(a["points"][0] - b["points"][0], axis=0)
                worst_m = max(worst_m, float(np.median(apart_m)))
            else:
                pairs.append([SE3.from_quaternion(x["t"][0], x["q"][0]) for x in (a, b)])
            if moved_px:
                pairs.append([_motion(x["rel"][0]) for x in (a, b)])
            for T_a, T_b in pairs:
                worst_m = max(worst_m, T_a.distance_to(T_b))
                worst_deg = max(worst_deg, float(np.degrees(T_a.angle_to(T_b))))
    candidate_name = candidate.name
    reference.close()
    candidate.close()
    bound_m, bound_deg = PARITY[config.precision]
    if not (worst_m <= bound_m and worst_deg <= bound_deg):
        raise BackendError(
            f"{candidate_name} {config.precision}: differs from torch by {worst_m:.4f} m and {worst_deg:.3f} deg, "
            f"more than {bound_m} m and {bound_deg} deg"
        )
    return worst_m, worst_deg


def _motion(rel_6: NDArray[np.float32]) -> SE3:
    T = SE3.exp(np.concatenate([rel_6[:3], np.zeros(3)]))
    return replace(T, t=rel_6[3:].astype(np.float64))


@dataclass(frozen=True)
class ExportResult:
    """A checked engine.

    Attributes:
        t_m: largest difference to PyTorch in position, metres.
        r_deg: largest difference in orientation, degrees.
        files: what a robot needs to run it.
    """

    t_m: float
    r_deg: float
    files: list[Path]


def export_scene(scene: Scene, config: BackendConfig, source: FrameSource | None) -> ExportResult:
    """Build the engine of a back end for the pose network of a scene and check it against PyTorch.

    Args:
        scene: with a pose network.
        config: back end and precision.
        source: recording whose first frames are run; noise images without one.

    Raises:
        SceneError: the scene has no pose network.
        BackendError: the back end cannot run here, or differs from PyTorch by more than its precision explains.
    """
    folder = scene.path / "networks"
    card_path = folder / f"{scene.method}.json"
    if not card_path.is_file():
        raise SceneError(f"{scene.path}: a {scene.method} scene has no pose network to export")
    card = ModelCard.read(card_path)
    preprocess = Preprocessor(Camera.from_dict(card.camera), card.mean, card.std)
    if source is None:
        rng = np.random.default_rng(0)
        shape = (preprocess.target.height_px, preprocess.target.width_px, 3)
        noise = [cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 4.0) for _ in range(8)]
        images = [preprocess.normalize(np.asarray(image, np.uint8)) for image in noise]
    else:
        frames = [source.read(index) for index in range(min(16, len(source.records)))]
        images = [preprocess(frame.image, frame.camera) for frame in frames]
    t_m, r_deg = check_parity(folder, scene.method, config, np.concatenate(images))
    suffix = "safetensors" if config.kind == "torch" else "onnx"
    files = []
    for name in (scene.method, MOTION):
        if (folder / f"{name}.json").is_file():
            files += [folder / f"{name}.json", folder / f"{name}.{suffix}"]
            if config.kind == "tensorrt":
                files += sorted((scene.path / ENGINES).glob(f"{name}-*.engine"))
    if config.kind == "openvino":
        files += sorted((scene.path / ENGINES).glob("*.blob"))
    return ExportResult(t_m, r_deg, files)
