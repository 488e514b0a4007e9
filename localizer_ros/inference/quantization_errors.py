"""What int8 does to each product of a network, measured on some inputs: the error of its output, mean and rest.

Each product in int8 stands beside the one in single precision and reads the same, unrounded features, so that an error
is the product's own and not of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.onnx_precision import HEAVY

# Means over images and places, by channel: of the error, of its square, of the output, and of its square.
_MEASURED = ("_error", "_error_2", "_given", "_given_2")


class ProductError(NamedTuple):
    """Error of a product in int8.

    Attributes:
        shift: (C,) what is missing in each channel of its output, in the mean.
        noise: power of the rest of the error, as a share of the output's own variance.
    """

    shift: NDArray[np.float64]
    noise: float


def cpu_session(model: Any) -> Any:
    """A model opened with ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def product_errors(model: Any, made: Any, inputs: Sequence[Tensors]) -> dict[str, ProductError]:
    """Name of each product in int8 -> its error on some inputs.

    Args:
        model: in single precision.
        made: of it, with Q/DQ nodes; its other nodes have the same names.
        inputs: of some runs.
    """
    pairs = _Pairs(model, made)
    session = cpu_session(pairs.beside())
    asked = [f"{name}{suffix}" for name in pairs.products for suffix in _MEASURED]
    sums = {name: np.zeros(()) for name in asked}
    for one in inputs:
        for name, value in zip(asked, session.run(asked, one), strict=True):
            sums[name] = sums[name] + value.astype(np.float64) / len(inputs)
    found: dict[str, ProductError] = {}
    for name in pairs.products:
        error, error_2, given, given_2 = (sums[f"{name}{suffix}"] for suffix in _MEASURED)
        variance = float(np.sum(given_2 - given**2))
        rest = float(np.sum(error_2 - error**2))
        found[name] = ProductError(error, rest / variance if variance > 0.0 else 0.0)
    return found


class _Pairs:
    """The products in int8 of a network beside those in single precision.

    Attributes:
        products: names of those whose input and weights are rounded.
    """

    def __init__(self, model: Any, made: Any) -> None:
        self._model = model
        self._constants = {t.name: t for t in made.graph.initializer}
        self._makers = {output: node for node in made.graph.node for output in node.output}
        self._products = {node.name: node for node in model.graph.node if node.op_type in HEAVY}
        self._rounded = {node.name: node for node in made.graph.node if node.name in self._products}
        self.products = [name for name, node in self._rounded.items() if self._is_rounded(node)]

    def _is_rounded(self, node: Any) -> bool:
        return all(
            name in self._makers and self._makers[name].op_type == "DequantizeLinear"
            for name in node.input[:2]
        )

    def beside(self) -> Any:
        """The network with both kinds of products and what is measured of them as its outputs."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        graph = copy.graph
        there = {t.name for t in graph.initializer}
        made: set[str] = set()
        for name in self.products:
            exact, rounded = self._products[name], self._rounded[name]
            for back in (self._makers[rounded.input[0]], self._makers[rounded.input[1]]):
                first = self._makers.get(back.input[0])
                for node in (back,) if first is None else (first, back):
                    if node.output[0] not in made:
                        made.add(node.output[0])
                        graph.node.append(node)
                        new = [n for n in node.input if n in self._constants and n not in there]
                        graph.initializer.extend(self._constants[n] for n in new)
                        there.update(new)
            twin = onnx.NodeProto()
            twin.CopyFrom(exact)
            twin.name = f"{name}_twin"
            twin.input[0], twin.input[1] = rounded.input[0], rounded.input[1]
            twin.output[0] = twin.name
            graph.node.append(twin)
            graph.node.append(helper.make_node("Sub", [exact.output[0], twin.name], [f"{name}_difference"]))
            self._add_means(graph, exact, f"{name}_difference", f"{name}_error")
            self._add_means(graph, exact, exact.output[0], f"{name}_given")
        return copy

    @staticmethod
    def _add_means(graph: Any, node: Any, tensor: str, name: str) -> None:
        """Means over images and places of a tensor and of its square, by channel, as outputs."""
        axes = (0, 2, 3) if node.op_type in ("Conv", "ConvTranspose") else (0,)
        if axes == (0,):  # the channels of a matrix product come last
            graph.node.append(helper.make_node("Flatten", [tensor], [f"{name}_rows"], axis=-1))
            tensor = f"{name}_rows"
        graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), f"{name}_axes"))
        graph.node.append(helper.make_node("Mul", [tensor, tensor], [f"{name}_square"]))
        for source, mean in ((tensor, name), (f"{name}_square", f"{name}_2")):
            graph.node.append(helper.make_node("ReduceMean", [source, f"{name}_axes"], [mean], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(mean, onnx.TensorProto.FLOAT, None))
