"""The network of a scene to fp16, bf16 or int8, with a gate in metres and degrees.

Where the gate fails the network stays in single precision, and the card says so. Of int8, whose ranges come from the
scene's mapping images, parts may: quantised as a whole first, then the layers that rounding hurts most go back to
single precision, more of them each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.files import sha256_of
from localizer_ros.core.preprocess import Preprocessor
from localizer_ros.core.progress import Progress
from localizer_ros.inference.model_card import ModelCard, card_path, read_card, variant_name
from localizer_ros.inference.onnx_precision import in_half, simplified
from localizer_ros.inference.quantization import quantized, stream_inputs
from localizer_ros.training.data import PosedImages
from localizer_ros.training.precision_gate import PrecisionGate

logger = logging.getLogger(__name__)

# Share of the products that stay in single precision: as many tries as there are numbers.
_PRECISE_SHARES = (0.0, 0.125, 0.25, 0.5)
# Images that the ranges are taken from: spread over the recording, in short streams for the sake of states.
_RANGE_IMAGES, _STREAM_IMAGES = 128, 8
EVERY_LAYER = "every layer"
"""What the card names as single precision where the whole network stays so."""

# A file computes in its own precision where a back end is asked for no other.
_AS_WRITTEN = BackendConfig(kind="openvino")


def lower_precision(gate: PrecisionGate, precision: str, progress: Progress) -> ModelCard:
    """The card of the scene's network in another precision, which is written beside the other.

    Judged as OpenVINO runs the file. On a processor without bfloat16, and for fp16 on any, that computes in single
    precision what was rounded in the file: a back end that does otherwise is judged by itself.

    Args:
        gate: what it is judged by.
        precision: fp16, bf16 or int8.
        progress: told as it goes.

    Raises:
        BackendError: the network cannot be rewritten.
    """
    folder = gate.folder
    card = read_card(card_path(folder, gate.method), ModelCard)
    name = variant_name(card.name, precision)
    # Nobody runs it under this name, whatever happens while it is judged; and what was judged before stays until then.
    trial = f"{name}.trial"
    file = folder / f"{trial}.onnx"
    tries = _quantised(gate, card) if precision == "int8" else _halved(gate, card, precision)
    count = len(_PRECISE_SHARES) if precision == "int8" else 1
    progress(f"to {precision}", 0, count)
    try:
        for attempt, (model, precise) in enumerate(tries):
            onnx.save(model, str(file))
            _write_card(gate, card, trial, file.name, precise, {})
            verdict = gate.verdict(gate.answers(trial, _AS_WRITTEN), precision)
            progress(f"to {precision}", count if not verdict.worse else attempt + 1, count)
            if not verdict.worse:
                file = file.rename(folder / f"{name}.onnx")
                return _write_card(gate, card, name, file.name, precise, verdict.figures)
            logger.info("%s with %d layers in fp32: %s", precision, len(precise), ", ".join(verdict.worse))
    finally:
        card_path(folder, trial).unlink(missing_ok=True)
        (folder / f"{trial}.onnx").unlink(missing_ok=True)
    (folder / f"{name}.onnx").unlink(missing_ok=True)
    parts = "even with half of its layers in fp32 " if precision == "int8" else ""
    logger.warning(
        "%s: the network stays in fp32, as %sit errs more than it may on %d images of the recording: %s; use fp32%s",
        precision,
        parts,
        len(gate.judged),
        ", ".join(verdict.worse),
        " or fp16" if precision != "fp16" else "",
    )
    return _write_card(gate, card, name, card.network, (EVERY_LAYER,), verdict.figures)


def _halved(gate: PrecisionGate, card: ModelCard, precision: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The network in a half type."""
    yield in_half(simplified(gate.folder / card.network), precision), ()


def _quantised(gate: PrecisionGate, card: ModelCard) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The network in int8, and the layers of it that stay in single precision: none first, then ever more."""
    model = simplified(gate.folder / card.network)
    inputs = stream_inputs(model, card, _streams(card, gate.trained))
    ranked: list[str] = []
    for share in _PRECISE_SHARES:
        precise = tuple(ranked[: round(share * len(ranked))])
        made = quantized(model, inputs, precise)
        ranked = ranked or sorted(made.noise, key=lambda product: -made.noise[product])
        yield made.model, precise


def _write_card(
    gate: PrecisionGate,
    card: ModelCard,
    name: str,
    network: str,
    precise: tuple[str, ...],
    accuracy: dict[str, float],
) -> ModelCard:
    written: ModelCard = msgspec.structs.replace(
        card,
        network=network,
        sha256=sha256_of(gate.folder / network),
        made_from=card.sha256,
        single_precision=precise,
        accuracy=accuracy,
    )
    written.write(card_path(gate.folder, name))
    return written


def _streams(card: ModelCard, data: PosedImages) -> list[NDArray[np.float32]]:
    """Network inputs of short streams all over a recording: of one image each for a network without states."""
    normalize = Preprocessor(data.camera, card.mean, card.std).normalize
    length = _STREAM_IMAGES if card.states else 1
    starts = np.unique(np.linspace(0, max(0, len(data) - length), _RANGE_IMAGES // length).astype(int))
    return [
        np.concatenate([normalize(image) for image in data.images[start : start + length]])
        for start in starts
    ]
