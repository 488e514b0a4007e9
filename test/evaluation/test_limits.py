"""What the machine could do: operations of a network counted, rates measured, shares of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from localizer_ros.core.types import BackendError
from localizer_ros.evaluation.limits import machine_rates, multiply_adds, reached

RATES = {
    "gemm_gflop_s": {"one_thread": 100.0, "all_threads": 200.0},
    "copy_gb_s": {"one_thread": 5.0, "all_threads": 8.0},
}


def network(path: Path) -> Path:
    """Two convolutions, the second of two groups, and a product of what they answer with a transposed matrix."""

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(int(np.prod(shape)), np.float32))

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=2),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w3"], ["answer"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 16, 24))],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, (1, 7))],
        [weights("w1", 8, 3, 3, 3), weights("w2", 6, 4, 1, 1), weights("w3", 7, 6 * 8 * 12)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_operations_are_those_of_convolutions_and_products(tmp_path: Path) -> None:
    pixels = 8 * 12
    expected = pixels * 8 * 27 + pixels * 6 * 4 + 7 * 6 * pixels
    assert multiply_adds(network(tmp_path / "network.onnx")) == expected


def test_a_damaged_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"no network")
    with pytest.raises(BackendError, match=r"network\.onnx: cannot be read"):
        multiply_adds(tmp_path / "network.onnx")


def test_stages_reach_a_share_of_what_is_possible() -> None:
    stages = {"network": {"p50": 10.0}, "preprocess": {"p50": 0.5}, "gate": {"p50": 1.0}}
    found = reached(stages, RATES, 0.4, 640 * 480 * 3)
    assert found["network"] == pytest.approx({"gflop": 0.4, "gflop_s": 40.0, "of_gemm": 0.2})
    assert found["preprocess"] == pytest.approx({"mb_s": 1843.2, "of_copy": 1.8432 / 8.0})
    assert list(found) == ["network", "preprocess"]
    assert "network" not in reached(stages, RATES, None, 1) and reached({}, RATES, 0.4, 1) == {}


def test_rates_of_this_machine_are_measured() -> None:
    rates = machine_rates()
    assert rates.keys() == RATES.keys()
    for name, found in rates.items():
        assert found.keys() == RATES[name].keys() and all(0.0 < rate < np.inf for rate in found.values())
