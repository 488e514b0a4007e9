"""Networks in int8: what is rounded, what is not, and what the biases take back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from localizer_ros.inference.onnx_precision import simplified
from localizer_ros.inference.quantization import quantized
from localizer_ros.inference.quantization_errors import cpu_session, product_errors

CHANNELS = 8


class Small(nn.Module):
    """A block of MobileNetV2 with its two traps, and a head.

    Values before the ReLU6 reach far beyond six, and the linear layer takes the difference of two large and almost
    constant sums.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.linear = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.hidden, self.head = nn.Linear(CHANNELS, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.first.weight[0] *= 60.0
            self.first.bias[1:] += 5.0
            self.linear.weight[:, 1:4] += 4.0
            self.linear.weight[:, 4:7] -= 4.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.first(image))
        x = nn.functional.relu6(self.linear(x))
        return self.head(nn.functional.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("networks") / "small.onnx"
    image = torch.zeros(1, 3, 12, 16)
    torch.onnx.export(
        Small().eval(), (image,), str(path), input_names=["image"], opset_version=18, dynamo=False
    )
    return simplified(path)


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.normal(0.0, 1.0, (1, 3, 12, 16)).astype(np.float32)} for _ in range(32)]


def products(model: Any) -> dict[str, Any]:
    return {node.name: node for node in model.graph.node if node.op_type in ("Conv", "Gemm")}


def test_what_only_an_activation_reads_is_not_rounded(
    model: Any, inputs: list[dict[str, np.ndarray]]
) -> None:
    made = quantized(model, inputs).model
    makers = {output: node for node in made.graph.node for output in node.output}
    clips = [node for node in made.graph.node if node.op_type == "Clip"]
    assert len(clips) == 2
    assert [makers[node.input[0]].op_type for node in clips] == ["Conv", "Conv"]
    rounded = [node for node in products(made).values() if node.input[0] in makers]
    # All but the head read what is rounded, and by weights that are.
    kinds = [[makers[name].op_type if name in makers else "" for name in n.input[:2]] for n in rounded]
    assert kinds.count(["DequantizeLinear"] * 2) == 3 and len(kinds) == 4


def test_biases_take_back_the_mean_error_of_each_channel(
    model: Any, inputs: list[dict[str, np.ndarray]]
) -> None:
    made = quantized(model, inputs).model
    old = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    new = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    errors = product_errors(model, made, inputs)
    assert len(errors) == 3
    before, after = products(model), products(made)
    for name, error in errors.items():
        # The weights' errors are those before, as only biases have changed; and one that had no bias has one now.
        bias = old[before[name].input[2]] if len(before[name].input) > 2 else 0.0
        np.testing.assert_allclose(new[after[name].input[2]] - bias, error.shift, atol=1e-6)
    shifts = {name: float(np.abs(error.shift).max()) for name, error in errors.items()}
    assert max(shifts.values()) > 1e-3, "nothing was there to take back"


def test_answers_stay_where_they_were(model: Any, inputs: list[dict[str, np.ndarray]]) -> None:
    made = quantized(model, inputs)

    def answers(network: Any) -> np.ndarray:
        session = cpu_session(network)
        return np.concatenate([session.run(None, given)[0] for given in inputs])

    exact, rounded = answers(model), answers(made.model)
    spread = exact.std(0)
    assert np.all(np.abs((rounded - exact).mean(0)) < 0.1 * spread)
    assert np.all((rounded - exact).std(0) < 0.3 * spread)
    assert all(0.0 < noise < 0.1 for noise in made.noise.values())


def test_precise_products_keep_their_weights_and_inputs(
    model: Any, inputs: list[dict[str, np.ndarray]]
) -> None:
    whole = quantized(model, inputs)
    noisiest = max(whole.noise, key=lambda name: whole.noise[name])
    made = quantized(model, inputs, [noisiest])
    assert set(made.noise) == set(whole.noise) - {noisiest}
    node, makers = products(made.model)[noisiest], {o: n for n in made.model.graph.node for o in n.output}
    assert all(name not in makers or makers[name].op_type != "DequantizeLinear" for name in node.input)
    onnx.checker.check_model(made.model, full_check=True)
