"""A torch module as a robot would run it: exported to ONNX, by OpenVINO. Shared by the tests of networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import openvino
import torch
from torch import Tensor, nn


def exported(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Callable[..., list[Tensor]]:
    """The exported module; called like it, gives its outputs in order."""
    path = folder / "exported.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), opset_version=18, dynamo=False)
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(*values: Tensor) -> list[Tensor]:
        answers = model([value.detach().numpy() for value in values])
        return [torch.from_numpy(answers[output].copy()) for output in model.outputs]

    return run
