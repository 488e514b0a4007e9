"""A network to int8: weights and activations quantised by Q/DQ nodes, which OpenVINO, ONNX Runtime and TensorRT read.

Symmetric, with one scale a channel for weights and one a tensor for activations, which is what TensorRT takes. The last
product on the way to each output stays in single precision, as in ``onnx_precision``. Made with ONNX Runtime's
quantiser, which is there anyway.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from localizer_ros.inference.backend import StateKeeper, Tensors
from localizer_ros.inference.model_card import ModelCard
from localizer_ros.inference.onnx_precision import HEAVY, before_heavy

# Operations worth int8, and those between them that would otherwise go to float32 and back.
_QUANTIZED = (*HEAVY, "Add", "Concat", "Resize", "MaxPool", "AveragePool")
_LEVELS = 127


class _Reader:
    """What ONNX Runtime's quantiser reads inputs from."""

    def __init__(self, inputs: Sequence[Tensors]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Tensors | None:
        """The next inputs, None after the last."""
        return next(self._inputs, None)


def stream_inputs(model: Any, card: ModelCard, streams: Sequence[NDArray[np.float32]]) -> list[Tensors]:
    """All inputs of a network, states included, as it runs over streams of images.

    Args:
        model: the network in single precision.
        card: of the network.
        streams: (N, 3, h, w) network inputs each, one after another in time.
    """
    session = _session(model)
    names = [spec.name for spec in card.outputs]
    states = StateKeeper(card)
    found: list[Tensors] = []
    for images in streams:
        states.reset()
        for image in images:
            given = states.inputs({"image": image[None]})
            found.append(given)
            if card.states:
                states.keep(dict(zip(names, session.run(names, given), strict=True)))
    return found


def quantized(model: Any, inputs: Sequence[Tensors], precise: Collection[str] = ()) -> Any:
    """A model with its products, and what lies between them, in int8.

    Args:
        model: simplified, in single precision; is not changed.
        inputs: whose ranges the activations get.
        precise: names of products that stay in single precision.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    nodes = before_heavy(model.graph) - set(precise)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_pre_process_metadata(copy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        with _quiet():
            quantize_static(
                copy,
                path,
                _Reader(inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_quantize=[
                    n.name for n in model.graph.node if n.name in nodes and n.op_type in _QUANTIZED
                ],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "MatMulConstBOnly": True,
                },
            )
        made = onnx.load(str(path))
    onnx.checker.check_model(made, full_check=True)
    return made


def noisiest_products(model: Any, made: Any, inputs: Sequence[Tensors]) -> list[str]:
    """Names of the quantised products of a model, those that rounding hurts most first.

    By the share of rounding in what they multiply: of the weights, and of the activations on ``inputs``.

    Args:
        model: in single precision.
        made: of it, by :func:`quantized`.
        inputs: of some runs.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type in HEAVY and n.name in before_heavy(model.graph)]
    activations = sorted({n.input[0] for n in products if f"{n.input[0]}_scale" in constants})
    given = {spec.name for spec in model.graph.input}
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    known = {output.name for output in asked.graph.output}
    asked.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(n) for n in activations if n not in known | given
    )
    session = _session(asked)
    noise = dict.fromkeys(activations, 0.0)
    for one in inputs:
        names = [name for name in activations if name not in given]
        values = {**one, **dict(zip(names, session.run(names, one), strict=True))}
        for name in activations:
            noise[name] += _rounding(values[name], constants[f"{name}_scale"]) / len(inputs)
    ranked: dict[str, float] = {}
    for node in products:
        weight = weights.get(node.input[1])
        scale = constants.get(f"{node.input[1]}_scale")
        if node.input[0] in noise and weight is not None and scale is not None:
            # One scale a channel, which is the first axis of a convolution's weights and the last of a plain matrix.
            shape = [1] * weight.ndim
            axis = next((i for i, size in enumerate(weight.shape) if size == scale.size), 0)
            shape[axis] = scale.size
            ranked[node.name] = noise[node.input[0]] + _rounding(weight, scale.reshape(shape))
    return sorted(ranked, key=lambda name: -ranked[name])


def _rounding(values: NDArray[np.floating], scale: NDArray[np.floating]) -> float:
    """Power of the rounding error, as a share of the values'."""
    rounded = np.clip(np.rint(values / scale), -_LEVELS - 1, _LEVELS) * scale
    power = float(np.mean(np.square(values)))
    return float(np.mean(np.square(rounded - values))) / power if power > 0.0 else 0.0


def _session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class _quiet:  # noqa: N801  # a context manager, called like a function
    """Keeps the advice of ONNX Runtime's quantiser out of the log."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        onnxruntime.set_default_logger_severity(3)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)
