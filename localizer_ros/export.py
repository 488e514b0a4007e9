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
from localizer_ros.core.files import sha256_of
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError, Camera, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.engine_cache import ENGINES
from localizer_ros.inference.model_card import ModelCard, TensorSpec, card_path, read_card, variant_name
from localizer_ros.inference.network_step import MOTION, NetworkStep
from localizer_ros.inference.onnx_precision import network_in
from localizer_ros.inference.open_backend import network_card
from localizer_ros.networks.encoders.layers import IMAGENET_MEAN, IMAGENET_STD
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.networks.scene_network import SceneNetwork
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene

# Beyond these metres and degrees a back end does not compute the network that was trained. Lower precision, of 11 or 8
# bits, may differ more; a quantised network is judged by its accuracy instead, where it is made.
PARITY = {"fp32": (1e-3, 0.05), "fp16": (5e-3, 0.25), "bf16": (3e-2, 1.5)}
# Pixels between the two images of a motion that back ends are compared by.
MOVED_PX = 2
# Images that an engine is checked on: of a recording, or of blurred noise where none is given.
_RECORDED_IMAGES, _NOISE_IMAGES = 16, 8


def save_network(network: nn.Module, folder: Path, card: ModelCard) -> ModelCard:
    """The card with its checksums, after NAME.safetensors, NAME.onnx and NAME.yaml were written.

    Args:
        network: in eval mode; ``forward`` takes the card's inputs in order and gives its outputs in order.
        folder: exists.
        card: complete but for the checksums.
    """
    network = network.eval().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in its stubs
    weights, onnx = folder / card.weights, folder / card.network
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
    card = msgspec.structs.replace(card, weights_sha256=sha256_of(weights), sha256=sha256_of(onnx))
    card.write(card_path(folder, card.name))
    return card


def stream_card(
    name: str,
    spec: dict[str, Any],
    network: SceneNetwork | MotionStep,
    camera: Camera,
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
        network=f"{name}.onnx",
        inputs=(image, *also, *(TensorSpec(f"{state.name}_prev", state.shape) for state in carried)),
        outputs=outputs,
        states={f"{state.name}_prev": state.name for state in carried},
        architecture=spec,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        camera=camera.to_dict(),
        sigma_scale=sigma_scale,
        refined_camera=refined_camera,
    )


def descriptor_card(spec: dict[str, Any], camera: Camera, channels: int) -> ModelCard:
    """The card of a global descriptor with batch size 1.

    Args:
        spec: what ``build_network`` needs to make it again.
        camera: ideal pinhole of its image.
        channels: of the descriptor.
    """
    return ModelCard(
        network="descriptor.onnx",
        inputs=(TensorSpec("image", (1, 3, camera.height_px, camera.width_px)),),
        outputs=(TensorSpec("descriptor", (1, channels)),),
        states={},
        architecture=spec,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        camera=camera.to_dict(),
    )


def check_parity(
    folder: Path, name: str, config: BackendConfig, images: NDArray[np.float32], candidate_name: str = ""
) -> tuple[float, float]:
    """Largest difference (metres, degrees) of a back end's absolute poses and motions to PyTorch's in fp32.

    Args:
        folder: with the network, and the motion network beside it if it needs one.
        name: of the network; must give ``t`` and ``q``, or ``points``.
        config: the back end to check.
        images: (N, 3, h, w) float32 network inputs, run as a stream.
        candidate_name: of the network that the back end runs; empty = the same.

    Raises:
        BackendError: the difference is above the bound of the precision; names both. For int8 there is no bound: what
            it costs in accuracy is judged where it is made.
    """
    candidate = NetworkStep(folder, candidate_name or name, config)
    reference = NetworkStep(folder, name, BackendConfig(kind="torch"))
    worst_m = worst_deg = 0.0
    for image in images:
        # Each image, and after it the same moved a little: a motion that is well determined, whatever was learned.
        for moved_px in (0, MOVED_PX):
            moved = np.roll(image, moved_px, 2)[None]
            apart_m, apart_deg = _apart(reference.run(moved), candidate.run(moved), motion=moved_px > 0)
            worst_m, worst_deg = max(worst_m, apart_m), max(worst_deg, apart_deg)
    kind = candidate.name
    reference.close()
    candidate.close()
    precision = candidate_name.rpartition(".")[2] if candidate_name else config.precision
    bound_m, bound_deg = PARITY.get(precision, (np.inf, np.inf))
    if not (worst_m <= bound_m and worst_deg <= bound_deg):
        raise BackendError(
            f"{kind} {precision}: differs from torch by {worst_m:.4f} m and {worst_deg:.3f} deg, "
            f"more than {bound_m} m and {bound_deg} deg"
        )
    return worst_m, worst_deg


def _apart(a: Tensors, b: Tensors, motion: bool) -> tuple[float, float]:
    """Largest difference (metres, degrees) of two answers to one image.

    Args:
        a, b: the answers.
        motion: count their motions too.
    """
    apart_m: list[float] = []
    pairs: list[tuple[SE3, SE3]] = []
    if "points" in a:
        # Coordinates of cells that show nothing known are noise; what counts is the typical cell.
        apart_m.append(float(np.median(np.linalg.norm(a["points"][0] - b["points"][0], axis=0))))
    else:
        pairs.append((_pose(a), _pose(b)))
    if motion:
        pairs.append((_motion(a["rel"][0]), _motion(b["rel"][0])))
    apart_m += [T_a.distance_to(T_b) for T_a, T_b in pairs]
    apart_deg = [float(np.degrees(T_a.angle_to(T_b))) for T_a, T_b in pairs]
    return max(apart_m), max(apart_deg, default=0.0)


def _pose(answer: Tensors) -> SE3:
    return SE3.from_quaternion(answer["t"][0], answer["q"][0])


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
        card: of the network in another precision than fp32; holds these figures, too.
    """

    t_m: float
    r_deg: float
    files: list[Path]
    card: ModelCard | None


def export_scene(
    scene: Scene, backend: str, config: BackendConfig, source: FrameSource | None
) -> ExportResult:
    """The engine of a back end for the pose network of a scene, built and checked against PyTorch.

    For a precision other than fp32 a network of it is written beside the scene's, with a card that holds how far each
    back end that was checked is from PyTorch; int8 must have been quantised before.

    Args:
        scene: with a pose network.
        backend: name of a back end, or onnx for the file alone, which OpenVINO checks.
        config: how it is run: precision, and that back end.
        source: recording whose first frames are run; noise images without one.

    Raises:
        SceneError: the scene has no pose network.
        BackendError: the back end cannot run here, or differs from PyTorch by more than its precision explains.
    """
    folder = scene.path / NETWORKS_FOLDER
    path = card_path(folder, scene.method)
    if not path.is_file():
        raise SceneError(f"{scene.path}: a {scene.method} scene has no pose network to export")
    card = read_card(path, ModelCard)
    images = _network_images(card, source)
    written = None if config.precision == "fp32" else _precise_card(folder, card, config.precision)
    if backend == "onnx" and written is not None:
        # The file itself, in the arithmetic that it asks for: the back end's own would be another.
        itself: BackendConfig = msgspec.structs.replace(config, kind="openvino", precision="fp32")
        name = variant_name(card.name, config.precision)
        t_m, r_deg = check_parity(folder, scene.method, itself, images, name)
    else:
        t_m, r_deg = check_parity(folder, scene.method, config, images)
    if written is not None:
        parity = {**written.parity, backend: (float(f"{t_m:.4g}"), float(f"{r_deg:.4g}"))}
        written = msgspec.structs.replace(written, parity=parity)
        written.write(card_path(folder, variant_name(card.name, config.precision)))
    return ExportResult(t_m, r_deg, _files(scene, backend, config), written)


def _precise_card(folder: Path, card: ModelCard, precision: str) -> ModelCard:
    """The card of a network in another precision, which is written where it is not there yet or was made of another."""
    name = variant_name(card.name, precision)
    path = card_path(folder, name)
    if path.is_file():
        written = read_card(path, ModelCard)
        if written.made_from == card.sha256:
            return written
    if precision == "int8":
        return network_card(folder, card.name, "openvino", precision)
    network = folder / f"{name}.onnx"
    network.write_bytes(network_in(folder / card.network, precision))
    written = msgspec.structs.replace(
        card, network=network.name, sha256=sha256_of(network), made_from=card.sha256
    )
    # The check opens it by its card.
    written.write(path)
    return written


def _files(scene: Scene, backend: str, config: BackendConfig) -> list[Path]:
    """What a robot needs to run an engine, and the engine."""
    folder, engines = scene.path / "networks", scene.path / ENGINES
    suffix = "safetensors" if backend == "torch" else "onnx"
    variant = variant_name(scene.method, config.precision)
    files: list[Path] = []
    for name in (scene.method, variant, MOTION):
        if card_path(folder, name).is_file():
            weights = folder / f"{name}.{suffix}"
            files += [card_path(folder, name), *([weights] if weights.is_file() else [])]
    if backend == "tensorrt":
        files += sorted(engines.glob("*.engine"))
    if backend == "openvino":
        files += sorted(engines.glob("*.blob"))
    return files


def _network_images(card: ModelCard, source: FrameSource | None) -> NDArray[np.float32]:
    """(N, 3, h, w) inputs of a network: the first frames of a recording, or blurred noise."""
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
