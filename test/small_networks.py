"""Small ONNX networks with model cards, made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper


def write_network(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], card: dict[str, Any]
) -> Path:
    """A network with its card; returns the card's path."""
    graph = helper.make_graph(nodes, "small", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "network.onnx")
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump({"network": "network.onnx", **card}))
    return path


def value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: np.ndarray) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def small_matcher(folder: Path, **changes: Any) -> Path:
    """Each keypoint's most alike, alike meaning descriptors less the squared distance of the coordinates given."""
    nodes = [
        helper.make_node("Transpose", ["desc1"], ["desc1_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["desc0", "desc1_t"], ["alike"]),
        constant("two", np.array([2], np.int64)),
        constant("one", np.array([1], np.int64)),
        helper.make_node("Unsqueeze", ["kpts0", "two"], ["k0"]),
        helper.make_node("Unsqueeze", ["kpts1", "one"], ["k1"]),
        helper.make_node("Sub", ["k0", "k1"], ["apart"]),
        helper.make_node("ReduceSumSquare", ["apart"], ["distance"], axes=[3], keepdims=0),
        helper.make_node("Sub", ["alike", "distance"], ["score"]),
        helper.make_node("ArgMax", ["score"], ["best"], axis=2, keepdims=1),
        helper.make_node("ReduceMax", ["score"], ["best_score"], axes=[2], keepdims=0),
        helper.make_node("Squeeze", ["best_score"], ["scores"]),
        constant("zero", np.array(0, np.int64)),
        constant("step", np.array(1, np.int64)),
        helper.make_node("Shape", ["kpts0"], ["count3"], start=1, end=2),
        helper.make_node("Squeeze", ["count3"], ["count"]),
        helper.make_node("Range", ["zero", "count", "step"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "one"], ["rows"]),
        constant("batch", np.array([0], np.int64)),
        helper.make_node("Squeeze", ["best", "batch"], ["column"]),
        helper.make_node("Concat", ["rows", "column"], ["matches"], axis=1),
    ]
    inputs = [value(f"kpts{n}", TensorProto.FLOAT, [1, f"n{n}", 2]) for n in (0, 1)]
    inputs += [value(f"desc{n}", TensorProto.FLOAT, [1, f"n{n}", 64]) for n in (0, 1)]
    outputs = [value("matches", TensorProto.INT64, ["m", 2]), value("scores", TensorProto.FLOAT, ["m"])]
    card = {
        "keypoints": ["kpts0", "kpts1"],
        "descriptors": ["desc0", "desc1"],
        "matches": "matches",
        "scores": "scores",
        "min_score": 0.5,
        "dimensions": 64,
    }
    return write_network(folder, nodes, inputs, outputs, {**card, **changes})


# Corners and an inner point of any image, in the coordinates of ALIKED.
SIGNED_UNIT = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0.5, -0.25]], dtype=np.float32)


def small_extractor(folder: Path, height: Any = "h", width: Any = "w", **changes: Any) -> Path:
    """Fixed keypoints in -1..1, descriptors that are the colours there, as (1, D, N)."""
    nodes = [
        constant("grid", SIGNED_UNIT[None, None]),
        helper.make_node(
            "GridSample",
            ["image", "grid"],
            ["sampled"],
            align_corners=1,
            mode="bilinear",
            padding_mode="border",
        ),
        constant("two", np.array([2], np.int64)),
        helper.make_node("Squeeze", ["sampled", "two"], ["descriptors"]),
        constant("keypoints", SIGNED_UNIT[None]),
        constant("scores", np.array([[0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)),
    ]
    outputs = [
        value("keypoints", TensorProto.FLOAT, [1, 5, 2]),
        value("descriptors", TensorProto.FLOAT, [1, "c", 5]),
        value("scores", TensorProto.FLOAT, [1, 5]),
    ]
    channels = changes.get("channels", 3)
    card = {
        "input": "image",
        "multiple_of": 1,
        "keypoints": "keypoints",
        "coordinates": "signed_unit",
        "descriptors": "descriptors",
        "scores": "scores",
        "dimensions": channels,
    }
    inputs = [value("image", TensorProto.FLOAT, [1, channels, height, width])]
    return write_network(folder, nodes, inputs, outputs, {**card, **changes})


def small_descriptor(folder: Path, **changes: object) -> Path:
    """A network that averages each colour over the image, minus one half, with its card."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["descriptor"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "colour.onnx")
    card = {"network": "colour.onnx", "input": "image", "width": 8, "height": 6, "mean": [0.5] * 3}
    card |= {"descriptor": "descriptor", "dimensions": 3, **changes}
    (folder / "card.yaml").write_text(yaml.safe_dump({k: v for k, v in card.items() if v is not None}))
    return folder / "card.yaml"
