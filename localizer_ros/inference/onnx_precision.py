"""Rewrites a network's ONNX file for another precision: half types but for the last product on the way to each output.

Half types are for products and for what lies between two of them and makes values neither much larger nor much smaller.
Sums of squares, norms and what is divided by them leave the range of fp16: an LSG that did so too was off by 33 cm and
17 deg on validation images, and in bf16, of fewer bits and a wider range, by 0.6 cm.

A position read off in half precision would be rounded to centimetres (steps of 1.6 cm at 30 m in fp16, of 12 cm in
bf16), so the last convolution or matrix product before an output, and what comes after it, stays in single precision.
Inputs, outputs and states stay float32 too, so that every back end is called alike.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from localizer_ros.core.types import BackendError
from localizer_ros.inference.model_card import ModelCard

# What takes the time of a network.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What may be of a half type between them, where all that it reads is.
_BETWEEN = frozenset(
    (
        *(
            "Relu",
            "LeakyRelu",
            "PRelu",
            "Clip",
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "Tanh",
            "Gelu",
            "Add",
            "Mul",
        ),
        *(
            "BatchNormalization",
            "MaxPool",
            "AveragePool",
            "GlobalAveragePool",
            "Resize",
            "Pad",
            "Concat",
            "Split",
        ),
        *("Slice", "Gather", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Identity"),
    )
)
# Inputs that are not of the type of the first: they are scales, sizes and the like.
_OWN_TYPE = {"Resize": (1, 2, 3)}
_TYPES = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
# The first in which a convolution may be of bfloat16.
_OPSET_OF_BF16 = 22


def network_in(folder: Path, card: ModelCard, precision: str) -> bytes:
    """Content of a network's ONNX file in a precision.

    Args:
        folder: of the network.
        card: of the network, or of what was made of it in this precision, which is taken as it is.
        precision: fp32, fp16, bf16 or int8.

    Raises:
        BackendError: the network cannot be rewritten.
    """
    path = folder / card.network
    if precision in _TYPES and not card.made_from:
        return bytes(in_half(simplified(path), precision).SerializeToString())
    return path.read_bytes()


def simplified(path: Path) -> Any:
    """The ONNX model of a file with its constants folded and its padding done by the convolutions themselves.

    Raises:
        BackendError: ONNX Runtime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        simple = Path(folder) / "network.onnx"
        options.optimized_model_filepath = str(simple)
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's exceptions have no common base but this.
        except Exception as error:
            raise BackendError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
        model = onnx.load(str(simple))
    _fold_padding(model.graph)
    # What follows tells nodes apart by their names, which ONNX Runtime does not always give.
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.name or node.op_type}_{index}"
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    kept = [opset for opset in model.opset_import if opset.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def in_half(model: Any, precision: str) -> Any:
    """A model, as :func:`simplified` gives it, of a half type wherever another convolution or product is to come.

    Args:
        model: is not changed.
        precision: fp16 or bf16.
    """
    if precision == "bf16" and model.opset_import[0].version < _OPSET_OF_BF16:
        model = onnx.version_converter.convert_version(model, _OPSET_OF_BF16)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    casts = _Casts(inferred, _TYPES[precision])
    early = before_heavy(inferred.graph)
    nodes: list[Any] = []
    for node in inferred.graph.node:
        is_half = node.name in early and (node.op_type in HEAVY or casts.can_be_half(node))
        for index, name in enumerate(node.input):
            if name and index not in _OWN_TYPE.get(node.op_type, ()):
                node.input[index] = casts.wanted(name, is_half, nodes)
        if is_half:
            casts.half.update(node.output)
        nodes.append(node)
    graph = helper.make_graph(
        nodes, inferred.graph.name, inferred.graph.input, inferred.graph.output, casts.initializers(nodes)
    )
    changed = helper.make_model(graph, opset_imports=inferred.opset_import, ir_version=inferred.ir_version)
    # Every type of every tensor is checked: a strongly typed engine takes nothing else.
    onnx.checker.check_model(changed, full_check=True)
    return changed


class _Casts:
    """Tensors of a graph in their own type and in the half one, cast where the other is wanted.

    Attributes:
        half: names of tensors that are of the half type.
    """

    def __init__(self, model: Any, types: tuple[int, np.dtype[Any]]) -> None:
        graph = model.graph
        self._type, self._dtype = types
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._given = {tensor.name for tensor in graph.input}
        self._halved: dict[str, Any] = {}
        self._made: dict[str, str] = {}
        infos = (*graph.value_info, *graph.input, *graph.output)
        kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
        kinds.update({name: tensor.data_type for name, tensor in self._constants.items()})
        self._floats = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT}
        self.half: set[str] = set()

    def wanted(self, name: str, half: bool, nodes: list[Any]) -> str:
        """The name of a tensor in the type wanted; a cast that is needed is added to ``nodes``."""
        if name not in self._floats or half == (name in self.half):
            return name
        if name in self._constants:
            halved = f"{name}_half"
            array = numpy_helper.to_array(self._constants[name]).astype(self._dtype)
            self._halved[halved] = numpy_helper.from_array(array, halved)
            return halved
        if name not in self._made:
            self._made[name] = f"{name}_{'half' if half else 'float'}"
            to = self._type if half else TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [name], [self._made[name]], f"{name}_cast", to=to))
        return self._made[name]

    def can_be_half(self, node: Any) -> bool:
        """Whether a node between products loses nothing in the half type that it would not lose there anyway."""
        floats = [name for name in node.input if name in self._floats]
        computed = [name for name in floats if name not in self._constants and name not in self._given]
        return node.op_type in _BETWEEN and all(
            name in self.half if name in computed else self._holds(name) for name in floats
        )

    def _holds(self, name: str) -> bool:
        """Whether the half type holds a tensor's values, where they are constant."""
        if name not in self._constants:
            return True
        array = numpy_helper.to_array(self._constants[name])
        halved = array.astype(self._dtype).astype(np.float32)
        return bool(np.all(np.isfinite(halved) & ((halved != 0.0) | (array == 0.0))))

    def initializers(self, nodes: list[Any]) -> list[Any]:
        """The constants that nodes use."""
        used = {name for node in nodes for name in node.input}
        return [t for name, t in {**self._constants, **self._halved}.items() if name in used]


def before_heavy(graph: Any) -> set[str]:
    """Names of the nodes that something heavy comes after."""
    makers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    waiting = [name for node in graph.node if node.op_type in HEAVY for name in node.input]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    outputs = {output.name for output in graph.output}
    return {node.name for node in graph.node if node.name in found and not outputs & set(node.output)}


def _fold_padding(graph: Any) -> None:
    """Let convolutions pad their own input where that is with zeros: a quantised network pads in float32 otherwise."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Pad"]:
        users = [n for n in graph.node if node.output[0] in n.input]
        mode = {a.name: a.s for a in node.attribute}.get("mode", b"constant")
        value = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        pads = constants.get(node.input[1])
        if (
            mode != b"constant"
            or pads is None
            or value is None
            or np.any(value)
            or len(node.input) > 3
            or any(user.op_type != "Conv" for user in users)
        ):
            continue
        half = len(pads) // 2
        if np.any(pads < 0) or np.any(pads[[0, 1, half, half + 1]]):
            continue
        spatial = [*pads[2:half], *pads[half + 2 :]]
        for user in users:
            old = {a.name: a for a in user.attribute}.get("pads")
            own = list(old.ints) if old is not None else [0] * len(spatial)
            if old is not None:
                user.attribute.remove(old)
            total = [int(a + b) for a, b in zip(own, spatial, strict=True)]
            user.attribute.append(helper.make_attribute("pads", total))
            user.input[0] = node.input[0]
        graph.node.remove(node)
