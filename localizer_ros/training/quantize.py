"""The network of a scene to int8: ranges from its mapping images, and a gate in metres and degrees.

Quantised as a whole first. Where that costs accuracy on the validation part, the layers that rounding hurts most go
back to single precision, more of them each time; where nothing helps, so does the network. The card says which.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
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
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame, SceneError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.model_card import ModelCard, card_path, read_card, variant_name
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.inference.onnx_precision import simplified
from localizer_ros.inference.quantization import quantized, stream_inputs
from localizer_ros.localization.learned.front_end import NetworkFrontEnd
from localizer_ros.localization.learned.out_of_distribution import TrainingDistribution
from localizer_ros.scene.bundle import NETWORKS_FOLDER, Scene
from localizer_ros.training.data import PosedImages, hold_out, load_posed_images

logger = logging.getLogger(__name__)

MOST_ABOVE = 1.05
"""Mean errors of a quantised network by those of the one in single precision, at most."""

# Typical move of an answer by the typical error of the network, at most: errors that know nothing of each other add in
# squares, and one of this size adds what is allowed.
_MOST_MOVED = float(np.sqrt(MOST_ABOVE**2 - 1.0))
# Share of the frames answered in single precision that may get no answer.
_MOST_LOST = 0.05
# Share of the products that stay in single precision: as many tries as there are numbers.
_PRECISE_SHARES = (0.0, 0.125, 0.25, 0.5)
# Images that the ranges are taken from: spread over the recording, in short streams for the sake of states.
_RANGE_IMAGES, _STREAM_IMAGES = 128, 8
# Validation images that the gate looks at: enough for a mean, few enough for seconds.
_GATE_IMAGES = 400
_FRAME_NS = 33_000_000
EVERY_LAYER = "every layer"
"""What the card names as single precision where the whole network stays so."""


@dataclass(frozen=True)
class _Answers:
    """What a network answers to successive frames; None where it has no answer."""

    poses: list[SE3 | None]
    motions: list[SE3 | None]


@dataclass(frozen=True)
class _Gate:
    """Frames with known poses, and the networks of a scene that answer to them."""

    folder: Path
    method: str
    data: PosedImages

    def answers(self, name: str) -> _Answers:
        """Of a network of the folder."""
        step = NetworkStep(self.folder, name, BackendConfig(kind="openvino"))
        front_end = NetworkFrontEnd(step, self.method, trained_on=TrainingDistribution.load(self.folder))
        found = _Answers([], [])
        for row, image in enumerate(self.data.images):
            if row and self.data.sequences[row] != self.data.sequences[row - 1]:
                front_end.reset()
            observation = front_end.observe(Frame((row + 1) * _FRAME_NS, image, self.data.camera), None)
            absolute, relative = observation.absolute, observation.relative
            found.poses.append(None if absolute is None else absolute.T_map_cam)
            found.motions.append(None if relative is None else relative.T_prev_cur)
        front_end.close()
        return found

    def compared(self, before: _Answers, after: _Answers) -> tuple[dict[str, float], list[str]]:
        """Accuracy of a network in single precision and of one in int8, and in what the latter is worse than it may.

        Judged by means over the same frames, and by how far answers move: medians of some dozen frames jump. Answers
        of bfloat16 that moved by 6 mm changed the median of 48 by 8 %, and their root mean square by less than 2 %.
        """
        truth = list(self.data.poses)
        motions = [T_a.inverse() @ T_b for T_a, T_b in itertools.pairwise(truth)]
        if not any(before.poses):
            return {}, ["lost"]
        poses, worse = _accuracy(("lost", "t_m", "r_deg"), truth, before.poses, after.poses)
        names = ("motion_lost", "motion_m", "motion_deg")
        moved, moved_worse = _accuracy(names, [None, *motions], before.motions, after.motions)
        return {**poses, **moved}, [*worse, *moved_worse]


def _accuracy(
    names: tuple[str, str, str],
    truth: Sequence[SE3 | None],
    before: list[SE3 | None],
    after: list[SE3 | None],
) -> tuple[dict[str, float], list[str]]:
    """Figures by name, and which of them say that the answers after are worse than they may be.

    Args:
        names: of the share of frames that lose their answer, of lengths in metres and of angles in degrees.
        truth: None where there is none.
        before: of the network in single precision.
        after: of the network in int8.
    """
    known = [
        (T, a, b) for T, a, b in zip(truth, before, after, strict=True) if T is not None and a is not None
    ]
    both = [(T, a, b) for T, a, b in known if b is not None]
    if not known:
        return {}, []
    figures = {names[0]: 1.0 - len(both) / len(known)}
    if len(known) - len(both) > _MOST_LOST * len(known):
        return figures, [names[0]]
    worse: list[str] = []
    for name, apart in zip(names[1:], (SE3.distance_to, _degrees_to), strict=True):
        old = np.array([apart(T, a) for T, a, _ in both])
        new = np.array([apart(T, b) for T, _, b in both])
        moves = np.array([apart(a, b) for _, a, b in both])
        found = {
            f"fp32_median_{name}": np.median(old),
            f"int8_median_{name}": np.median(new),
            f"fp32_mean_{name}": np.mean(old),
            f"int8_mean_{name}": np.mean(new),
            f"moved_median_{name}": np.median(moves),
            f"moved_most_{name}": np.max(moves),
        }
        bounds = {
            f"int8_mean_{name}": MOST_ABOVE * np.mean(old),
            f"moved_median_{name}": _MOST_MOVED * np.median(old),
            # No answer moves further than answers of the network are off in the worst case.
            f"moved_most_{name}": np.max(old),
        }
        figures |= {key: float(f"{value:.6g}") for key, value in found.items()}
        worse += [key for key, bound in bounds.items() if found[key] > bound]
    return figures, worse


def _degrees_to(T_a: SE3, T_b: SE3) -> float:
    return float(np.degrees(T_a.angle_to(T_b)))


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
    gate: _Gate, card: ModelCard, model: Any, inputs: list[Tensors], progress: Progress
) -> ModelCard:
    """The card of the int8 network with the fewest layers in single precision that is as accurate as it must be."""
    name = variant_name(card.name, "int8")
    before = gate.answers(card.name)
    ranked: list[str] = []
    figures: dict[str, float] = {}
    worse: list[str] = []
    for attempt, share in enumerate(_PRECISE_SHARES):
        progress("quantising", attempt, len(_PRECISE_SHARES))
        precise = tuple(ranked[: round(share * len(ranked))])
        made = quantized(model, inputs, precise)
        ranked = ranked or sorted(made.noise, key=lambda product: -made.noise[product])
        onnx.save(made.model, str(gate.folder / f"{name}.onnx"))
        written = _write_card(gate.folder, card, f"{name}.onnx", precise, {})
        figures, worse = gate.compared(before, gate.answers(name))
        if not worse:
            progress("quantising", len(_PRECISE_SHARES), len(_PRECISE_SHARES))
            return _write_card(gate.folder, card, written.network, precise, figures)
        told = ", ".join(f"{key} {figures.get(key, 1.0):g}" for key in worse)
        logger.info("int8 with %d of %d layers in fp32: too much: %s", len(precise), len(ranked), told)
    (gate.folder / f"{name}.onnx").unlink()
    logger.warning(
        "int8: the network stays in fp32: even with half of its layers in fp32 it errs more than it may: %s",
        ", ".join(f"{key} {figures.get(key, 1.0):g}" for key in worse),
    )
    return _write_card(gate.folder, card, card.network, (EVERY_LAYER,), figures)


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
    """Network inputs of short streams all over a recording: of one image each for a network without states."""
    normalize = Preprocessor(data.camera, card.mean, card.std).normalize
    length = _STREAM_IMAGES if card.states else 1
    starts = np.unique(np.linspace(0, max(0, len(data) - length), _RANGE_IMAGES // length).astype(int))
    return [
        np.concatenate([normalize(image) for image in data.images[start : start + length]])
        for start in starts
    ]
