"""Network to files a robot can run: safetensors, ONNX and a model card, with a parity gate in metres and degrees.

The gate is that of single precision, in which every back end computes what PyTorch does, whatever an image shows. Lower
precision does not, and what that costs is judged by images of the scene: ``training.precision_gate``.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError, Camera
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.model_card import ModelCard, TensorSpec, card_path
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.networks.encoders.layers import IMAGENET_MEAN, IMAGENET_STD
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.networks.scene_network import SceneNetwork

# Beyond these metres and degrees a back end does not compute the network that was trained, in single precision.
PARITY_M, PARITY_DEG = 1e-3, 0.05
# Pixels between the two images of a motion that back ends are compared by.
MOVED_PX = 2


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
    folder: Path, name: str, config: BackendConfig, images: NDArray[np.float32]
) -> tuple[float, float]:
    """Largest difference (metres, degrees) of a back end's absolute poses and motions to PyTorch's, both in fp32.

    Args:
        folder: with the network, and the motion network beside it if it needs one.
        name: of the network; must give ``t`` and ``q``, or ``points``.
        config: the back end to check.
        images: (N, 3, h, w) float32 network inputs, run as a stream.

    Raises:
        BackendError: the difference is above the bound; names both.
    """
    candidate = NetworkStep(folder, name, config)
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
    if not (worst_m <= PARITY_M and worst_deg <= PARITY_DEG):
        raise BackendError(
            f"{kind} fp32: differs from torch by {worst_m:.4f} m and {worst_deg:.3f} deg, "
            f"more than {PARITY_M} m and {PARITY_DEG} deg"
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
