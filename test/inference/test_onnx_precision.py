"""Half precision in an ONNX file: valid types everywhere, positions as exact far from the origin as near it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from localizer_ros.core.types import BackendError
from localizer_ros.inference.model_card import ModelCard, card_path, read_card
from localizer_ros.inference.onnx_precision import in_half, network_in, simplified
from localizer_ros.networks.build import build_network

FAR_M = 1000.0


# What networks of every family are made of.
SPEC = {
    "encoder": "mobilenet_v2",
    "stride_padding": "same",
    "height_px": 64,
    "width_px": 96,
    "head": "spatial",
    "hidden": 64,
    "dropout": 0.0,
    "anchors": 4,
    "orientation": "relative",
    "answer": "mean",
    "channels": 32,
    "memory": 2,
    "motion_hidden": 16,
    "aligned": True,
    "coordinate_width": 32,
}


def compiled(content: bytes) -> Any:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(content, b""), "CPU", settings)


def run(content: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    model = compiled(content)
    answers = model({"image": image})
    return {output.any_name: answers[output].copy() for output in model.outputs}


@pytest.mark.parametrize(("precision", "bound_m"), [("fp16", 5e-3), ("bf16", 3e-2)])
def test_positions_are_exact_far_from_the_origin(tiny_scene: Path, precision: str, bound_m: float) -> None:
    model = simplified(tiny_scene / "networks" / "posenet.onnx")
    (centre,) = (t for t in model.graph.initializer if t.name == "absolute.centre")
    moved = numpy_helper.to_array(centre) + np.float32(FAR_M)
    centre.CopyFrom(numpy_helper.from_array(moved, centre.name))
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    expected = run(model.SerializeToString(), image)
    half = in_half(model, precision)
    answer = run(half.SerializeToString(), image)
    assert np.max(np.abs(answer["t"] - expected["t"])) < bound_m
    assert not np.array_equal(answer["descriptor"], expected["descriptor"])
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    halved = sum(t.data_type == kind and len(t.dims) == 4 for t in half.graph.initializer)
    weights = sum(len(t.dims) == 4 for t in half.graph.initializer)
    # All but the last convolution before an output, which is that of the depth.
    assert halved >= weights - 2 and weights > 20
    assert all(
        i.type.tensor_type.elem_type == TensorProto.FLOAT for i in (*half.graph.input, *half.graph.output)
    )


class Padded(nn.Module):
    """Padding that a convolution can do itself, and padding that it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=p) for p in (0, 1, 0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first(nn.functional.pad(image, (0, 1, 2, 3)))
        x = self.second(nn.functional.pad(x, (1, 0, 0, 1)))
        x = self.third(nn.functional.pad(x, (1, 1, 1, 1), value=0.5))
        return self.first(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"))


def test_zero_padding_is_done_by_the_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, image = tmp_path / "padded.onnx", torch.randn(1, 3, 12, 16)
    network = Padded().eval()
    torch.onnx.export(network, (image,), str(path), input_names=["image"], opset_version=18, dynamo=False)
    model = simplified(path)
    assert [node.op_type for node in model.graph.node].count("Pad") == 2
    onnx.checker.check_model(model, full_check=True)
    (answer,) = run(model.SerializeToString(), image.numpy()).values()
    np.testing.assert_allclose(answer, network(image).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["posenet", "anchors", "lsg", "scene_coords"])
def test_every_network_has_a_half_precision(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    network = build_network({**SPEC, "family": family}).eval()
    images = torch.rand(3, 1, 3, 64, 96)
    states = [torch.zeros(1, *shape) for shape in network.state_shapes]
    names = ["image", *(f"state_{index}" for index in range(len(states)))]
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        network, (images[0], *states), str(path), input_names=names, opset_version=18, dynamo=False
    )
    model = simplified(path)
    for precision, share in (("fp16", 0.02), ("bf16", 0.1)):
        step = compiled(in_half(model, precision).SerializeToString())
        given = [state.numpy() for state in states]
        exact = list(states)
        for image in images:
            with torch.no_grad():
                expected = network(image, *exact)
            answer = step([image.numpy(), *given])
            exact = list(expected[len(expected) - len(states) :])
            found = [answer[index].copy() for index in range(len(expected))]
            given = found[len(found) - len(states) :]
            for value, wanted in zip(found, expected, strict=True):
                assert np.max(np.abs(value - wanted.numpy())) < share * max(1.0, float(wanted.abs().max()))


class Weighed(nn.Module):
    """Products, and between them what fp16 cannot do: norms of many values, tiny constants and comparisons, as LSG's
    look into its memory has them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = 20.0 * self.first(image)
        size = x.square().sum((2, 3), keepdim=True)
        x = x * 1e3 / (size * size).clamp_min(1e-12).sqrt() * (size > 0.0).to(x.dtype)
        return self.third(torch.relu(self.second(1e3 * x)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("black", [False, True])
def test_what_leaves_the_range_of_a_half_type_stays_in_single_precision(
    tmp_path: Path, precision: str, black: bool
) -> None:
    torch.manual_seed(0)
    path, image = tmp_path / "weighed.onnx", torch.randn(1, 3, 24, 32)
    network = Weighed().eval()
    if black:  # as a stream begins: norms of nothing
        image = 0.0 * image
        nn.init.zeros_(network.first.bias)
    torch.onnx.export(network, (image,), str(path), input_names=["image"], opset_version=18, dynamo=False)
    half = in_half(simplified(path), precision)
    (answer,) = run(half.SerializeToString(), image.numpy()).values()
    expected = network(image).detach().numpy()
    assert np.max(np.abs(answer - expected)) < 0.02 * max(np.ptp(expected), 1e-3)
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    # All convolutions but the last.
    assert (
        sum(t.data_type == kind and t.dims[:1] == [8] and len(t.dims) == 4 for t in half.graph.initializer)
        == 2
    )


def test_other_precisions_are_the_file_itself_and_a_damaged_file_is_named(
    tiny_scene: Path, tmp_path: Path
) -> None:
    card = read_card(card_path(tiny_scene / "networks", "posenet"), ModelCard)
    path = tmp_path / card.network
    path.write_bytes(b"no network")
    # What was made of a network in this precision is not made again.
    made: ModelCard = msgspec.structs.replace(card, made_from=card.sha256)
    for given, precision in ((card, "fp32"), (card, "int8"), (made, "fp16")):
        assert network_in(tmp_path, given, precision) == b"no network"
    with pytest.raises(BackendError, match=r"posenet\.onnx: cannot be read"):
        network_in(tmp_path, card, "fp16")
