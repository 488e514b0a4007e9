"""A network to int8: weights and activations quantised by Q/DQ nodes, which OpenVINO, ONNX Runtime and TensorRT read.

Symmetric, with one scale a channel for weights and one a tensor for activations, which is what TensorRT takes. The last
product on the way to each output stays in single precision, as in ``onnx_precision``. Made with ONNX Runtime's
quantiser, which is there anyway, and then mended in two places that a regressor does not forgive.

What lies between a product and its activation is not rounded: before a ReLU6 values reach ten times what passes it, and
steps as coarse as that range wants are left of what does. And biases make up for the mean error of each channel
(Nagel et al., ICCV 2019): where large products of weights and inputs that hardly change cancel out, as in the linear
layers of MobileNetV2, rounded weights shift the sum by more than it varies.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from localizer_ros.inference.backend import StateKeeper, Tensors
from localizer_ros.inference.model_card import ModelCard
from localizer_ros.inference.onnx_precision import HEAVY, before_heavy
from localizer_ros.inference.quantization_errors import cpu_session, product_errors

# Runs that mean errors are taken from: four times as many moved the answers of a MobileNetV2 as far.
_CORRECTED_RUNS = 64
# Operations worth int8, and those between them that would otherwise go to float32 and back.
_QUANTIZED = (*HEAVY, "Add", "Concat", "Resize", "MaxPool", "AveragePool")


class Quantized(NamedTuple):
    """A network in int8.

    Attributes:
        model: with Q/DQ nodes.
        noise: product in int8 -> power of its error, but for the mean, as a share of the variance of what it gives.
    """

    model: Any
    noise: dict[str, float]


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
    session = cpu_session(model)
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


def quantized(model: Any, inputs: Sequence[Tensors], precise: Collection[str] = ()) -> Quantized:
    """A model with its products, and what lies between them, in int8.

    Args:
        model: simplified, in single precision; is not changed.
        inputs: whose ranges the activations get, and whose mean errors the biases take back.
        precise: names of products that stay in single precision.
    """
    chosen = before_heavy(model.graph) - set(precise)
    names = [n.name for n in model.graph.node if n.name in chosen and n.op_type in _QUANTIZED]
    made = _rounded(model, inputs, names)
    _keep_exact_between(made.graph, set(names))
    errors = product_errors(model, made, inputs[:: max(1, len(inputs) // _CORRECTED_RUNS)])
    biases = {t.name: t for t in made.graph.initializer}
    for node in made.graph.node:
        if node.name not in errors or node.op_type == "MatMul":  # which has no bias
            continue
        shift = errors[node.name].shift
        old = numpy_helper.to_array(biases[node.input[2]]) if len(node.input) > 2 else np.zeros_like(shift)
        name = f"{node.name}_bias"
        made.graph.initializer.append(numpy_helper.from_array((old + shift).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    used = {name for node in made.graph.node for name in node.input}
    for tensor in [t for t in made.graph.initializer if t.name not in used]:
        made.graph.initializer.remove(tensor)
    onnx.checker.check_model(made, full_check=True)
    return Quantized(made, {name: error.noise for name, error in errors.items()})


def _rounded(model: Any, inputs: Sequence[Tensors], names: list[str]) -> Any:
    """A model with the nodes of these names between Q/DQ nodes."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

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
                nodes_to_quantize=names,
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
        return onnx.load(str(path))


def _keep_exact_between(graph: Any, chosen: set[str]) -> None:
    """Take away the rounding of tensors that none of the chosen nodes reads."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    for rounding in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        back = readers[rounding.output[0]]
        users = [user for node in back for user in readers.get(node.output[0], [])]
        if outputs & {node.output[0] for node in back} or any(user.name in chosen for user in users):
            continue
        gone = {node.output[0] for node in back}
        for user in users:
            for index, name in enumerate(user.input):
                if name in gone:
                    user.input[index] = rounding.input[0]
        for node in (rounding, *back):
            graph.node.remove(node)


class _quiet:  # noqa: N801  # a context manager, called like a function
    """Keeps the advice of ONNX Runtime's quantiser out of the log."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        onnxruntime.set_default_logger_severity(3)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)
