"""Half precision in an ONNX file: valid types everywhere, positions as exact far from the origin as near it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from localizer_ros.core.types import BackendError
from localizer_ros.inference.onnx_precision import in_half, network_in, simplified

FAR_M = 1000.0


def run(content: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(content, b""), "CPU", settings)
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


def test_other_precisions_are_the_file_itself_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"no network")
    assert network_in(path, "fp32") == network_in(path, "int8") == b"no network"
    with pytest.raises(BackendError, match=r"network\.onnx: cannot be read"):
        network_in(path, "fp16")
