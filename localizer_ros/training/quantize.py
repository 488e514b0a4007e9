"""The network of a scene to int8: ranges from its mapping images, and a gate in metres and degrees.

Quantised as a whole first. Where that costs accuracy on the validation part, the layers that rounding hurts most go
back to single precision, more of them each time; where nothing helps, so does the network. The card says which.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.config.schema import load_config
from localizer_ros.core.files import sha256_of
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.progress import Progress, no_progress
from localizer_ros.core.types import Camera, Frame, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.model_card import ModelCard, card_path, read_card, variant_name
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.inference.onnx_precision import simplified
from localizer_ros.inference.quantization import noisiest_products, quantized, stream_inputs
from localizer_ros.localization.learned.front_end import NetworkFrontEnd
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene
from localizer_ros.training.data import PosedImages, hold_out, load_posed_images

logger = logging.getLogger(__name__)

MOST_ABOVE = 1.05
"""Errors of a quantised network by those of the one in single precision, at most."""

# Share of the products that stay in single precision: as many tries as there are numbers.
_PRECISE_SHARES = (0.0, 0.125, 0.25, 0.5)
# Images that the ranges are taken from: streams of successive ones, for the sake of states.
_STREAMS, _STREAM_IMAGES = 16, 8
# Of those, the runs that layers are ranked by.
_RANKED_RUNS = 16
# Validation images that the gate looks at: enough for a median, few enough for seconds.
_GATE_IMAGES = 400
_FRAME_NS = 33_000_000
EVERY_LAYER = "every layer"
"""What the card names as single precision where the whole network stays so."""


@dataclass(frozen=True)
class _Gate:
    """Frames with known poses, and what a network of a scene errs by on them."""

    folder: Path
    method: str
    data: PosedImages

    def errors(self, name: str) -> dict[str, float]:
        """Medians of a network of the folder: ``t_m``, ``r_deg``, and of its motions ``motion_m``, ``motion_deg``."""
        front_end = NetworkFrontEnd(
            NetworkStep(self.folder, name, BackendConfig(kind="openvino")), self.method
        )
        found: dict[str, list[float]] = {key: [] for key in ("t_m", "r_deg", "motion_m", "motion_deg")}
        for row, (image, T) in enumerate(zip(self.data.images, self.data.poses, strict=True)):
            if row and self.data.sequences[row] != self.data.sequences[row - 1]:
                front_end.reset()
            observation = front_end.observe(Frame((row + 1) * _FRAME_NS, image, self.data.camera), None)
            absolute, relative = observation.absolute, observation.relative
            # A frame without an answer is one that is as far off as can be.
            found["t_m"].append(np.inf if absolute is None else absolute.T_map_cam.distance_to(T))
            found["r_deg"].append(180.0 if absolute is None else np.degrees(absolute.T_map_cam.angle_to(T)))
            if relative is not None:
                T_prev_cur = self.data.poses[row - 1].inverse() @ T
                found["motion_m"].append(relative.T_prev_cur.distance_to(T_prev_cur))
                found["motion_deg"].append(np.degrees(relative.T_prev_cur.angle_to(T_prev_cur)))
        front_end.close()
        return {key: float(np.median(values)) for key, values in found.items() if values}


def quantize_scene(scene: Scene, source: FrameSource, progress: Progress = no_progress) -> ModelCard:
    """The card of the scene's network in int8, which is written beside the other.

    Args:
        scene: with a pose network.
        source: the recording that it was mapped from.
        progress: told as it goes.

    Raises:
        SceneError: the scene has no pose network, or was mapped from another recording.
        SourceError: the recording cannot be read.
    """
    folder = scene.path / NETWORKS_FOLDER
    if not card_path(folder, scene.method).is_file():
        raise SceneError(f"{scene.path}: a {scene.method} scene has no pose network to export")
    card = read_card(card_path(folder, scene.method), ModelCard)
    data = _mapped_images(scene, source, card, progress)
    fraction = load_config(MapConfig, scene.path / "config.yaml").training.validation_fraction
    kept, held = hold_out(len(data), fraction)
    # Without a validation part the gate can only look at what was trained on.
    judged = data.subset((held if len(held) > 1 else kept)[:_GATE_IMAGES])
    gate = _Gate(folder, scene.method, judged)
    model = simplified(folder / card.network)
    inputs = stream_inputs(model, card, _streams(card, data.subset(kept)))
    return _write_first_that_passes(gate, card, model, inputs, progress)


def _write_first_that_passes(
    gate: _Gate, card: ModelCard, model: Any, inputs: list[dict[str, NDArray[np.float32]]], progress: Progress
) -> ModelCard:
    """The card of the int8 network with the fewest layers in single precision that is as accurate as it must be."""
    name = variant_name(card.name, "int8")
    before = gate.errors(card.name)
    ranked: list[str] = []
    after: dict[str, float] = {}
    for attempt, share in enumerate(_PRECISE_SHARES):
        progress("quantising", attempt, len(_PRECISE_SHARES))
        precise = tuple(ranked[: round(share * len(ranked))])
        made = quantized(model, inputs, precise)
        if not ranked:
            ranked = noisiest_products(model, made, inputs[:: max(1, len(inputs) // _RANKED_RUNS)])
        onnx.save(made, str(gate.folder / f"{name}.onnx"))
        written = _write_card(gate.folder, card, f"{name}.onnx", precise, {})
        after = gate.errors(name)
        if all(after[key] <= MOST_ABOVE * before[key] for key in before):
            progress("quantising", len(_PRECISE_SHARES), len(_PRECISE_SHARES))
            return _write_card(gate.folder, card, written.network, precise, _accuracy(before, after))
        logger.info(
            "int8 with %d of %d layers in fp32: %s, in fp32 %s", len(precise), len(ranked), after, before
        )
    (gate.folder / f"{name}.onnx").unlink()
    logger.warning(
        "int8: the network stays in fp32: even with half of its layers in fp32 it errs by %.3f m and %.2f deg, more "
        "than %.2f times its %.3f m and %.2f deg, or its motions do",
        *(after["t_m"], after["r_deg"], MOST_ABOVE, before["t_m"], before["r_deg"]),
    )
    return _write_card(gate.folder, card, card.network, (EVERY_LAYER,), _accuracy(before, after))


def _write_card(
    folder: Path, card: ModelCard, network: str, precise: tuple[str, ...], accuracy: dict[str, float]
) -> ModelCard:
    written: ModelCard = msgspec.structs.replace(
        card,
        network=network,
        sha256=sha256_of(folder / network),
        made_from=card.sha256,
        single_precision=precise,
        accuracy=accuracy,
    )
    written.write(card_path(folder, variant_name(card.name, "int8")))
    return written


def _accuracy(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    rows = (("fp32", before), ("int8", after))
    return {f"{name}_median_{key}": float(f"{v:.6g}") for name, row in rows for key, v in row.items()}


def _mapped_images(scene: Scene, source: FrameSource, card: ModelCard, progress: Progress) -> PosedImages:
    """The images that a scene was trained on, as its network sees them."""
    training = scene.manifest["training"]
    part = training.get("split")
    part_of_source = source.split(part) if part in source.splits else source
    if len(part_of_source.records) != training.get("frames"):
        raise SceneError(
            f"{scene.path}: was mapped from {training.get('frames')} frames of {training.get('source')}, but "
            f"{source.path} has {len(part_of_source.records)}; give the recording that it was mapped from"
        )
    return load_posed_images(part_of_source, Camera.from_dict(card.camera), progress)


def _streams(card: ModelCard, data: PosedImages) -> list[NDArray[np.float32]]:
    """Network inputs of short streams all over a recording."""
    normalize = Preprocessor(data.camera, card.mean, card.std).normalize
    last = max(0, len(data) - _STREAM_IMAGES)
    starts = np.unique(np.linspace(0, last, _STREAMS).astype(int))
    return [
        np.concatenate([normalize(image) for image in data.images[start : start + _STREAM_IMAGES]])
        for start in starts
    ]
