"""PyTorch back end: rebuilds the network from its card and weights. The only file here that imports torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.threads import cores
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference.backend import StateKeeper, Tensors
from localizer_ros.inference.model_card import ModelCard
from localizer_ros.networks.build import build_network
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.monte_carlo import MonteCarloHead
from localizer_ros.networks.posenet import PoseNet

logger = logging.getLogger(__name__)

Step = Callable[..., Sequence[torch.Tensor]]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """See :class:`localizer_ros.inference.backend.Backend`.

    Args:
        folder: of the network.
        card: of the network.
        config: precision and threads.
        samples: passes of Monte-Carlo dropout through the pose head; 0 = one without dropout. There is one more output
            then, ``covariance`` (1, 6, 6) of [rotation (rad), translation (m)].

    Raises:
        BackendError: samples cannot be had.
        SceneError: this version has no such network, or the weights do not fit their card.
    """

    name = "torch"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig, samples: int = 0) -> None:
        self.card = card
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(cores(config.threads))
        path = folder / card.weights
        try:
            network = build_network(card.architecture)
        except ValueError as error:
            raise SceneError(
                f"{path}: made by another version of localizer_ros ({error}); map it again"
            ) from error
        try:
            network.load_state_dict(load_file(path))
        except (RuntimeError, OSError) as error:
            raise SceneError(f"{path}: does not fit its card ({str(error).splitlines()[0]})") from error
        self._sampled: MonteCarloHead | None = None
        if samples:
            if samples < 2:
                raise BackendError(f"ensemble.samples: expected 0 or at least 2, got {samples}")
            if not isinstance(network, PoseNet) or not card.architecture["dropout"]:
                raise BackendError(
                    f"ensemble.samples: needs a posenet or anchors network that was trained with dropout, not {path}"
                )
            network.absolute = self._sampled = MonteCarloHead(network.absolute, samples)
        if (dtype := _DTYPES[config.precision]) != torch.float32:
            network.encoder = _HalfEncoder(network.encoder, dtype)  # type: ignore[arg-type]  # nn.Module in its stubs
        network = network.eval().to(self._device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        self._network: Step = network
        if self._device.type == "cuda" and not samples:
            self._network = _recorded(network, [torch.zeros(spec.shape) for spec in card.inputs])
        self._states = StateKeeper(card)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """See the protocol."""
        given = self._states.inputs(inputs)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(given[spec.name])).to(self._device)
            for spec in self.card.inputs
        ]
        answers = self._network(*tensors)
        outputs = {
            spec.name: answer.float().cpu().numpy()
            for spec, answer in zip(self.card.outputs, answers, strict=True)
        }
        if self._sampled is not None:
            assert self._sampled.covariance_B66 is not None
            outputs["covariance"] = self._sampled.covariance_B66.float().cpu().numpy()
        return self._states.keep(outputs)

    def reset(self) -> None:
        """See the protocol."""
        self._states.reset()

    def close(self) -> None:
        """See the protocol."""
        del self._network


class _HalfEncoder(nn.Module):
    """An encoder in half precision, as in training; the heads stay in single precision: positions in bf16 have steps of
    12 cm at 30 m."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self._dtype = dtype

    def forward(self, image_B3HW: torch.Tensor) -> Features:
        features = self.encoder(image_B3HW.to(self._dtype))
        return Features(*(value.float() for value in features))


class CudaGraph:
    """A network's step, recorded once and replayed: one launch in place of hundreds, each as long as its arithmetic.

    Written without a GPU at hand and never run.

    Args:
        network: on the GPU, in eval mode.
        inputs: of one step; where later ones are copied to.
    """

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def __init__(self, network: nn.Module, inputs: list[torch.Tensor]) -> None:
        self._inputs = inputs
        # Libraries set themselves up in the first calls, which must not be recorded.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                network(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs: Sequence[torch.Tensor] = network(*inputs)

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """The step's outputs, until the next call."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs


def _recorded(network: nn.Module, inputs: list[torch.Tensor]) -> Step:
    step: Step = network
    try:
        step = CudaGraph(network, [x.to("cuda") for x in inputs])
    except RuntimeError as error:  # what waits for the CPU within a step cannot be recorded
        logger.warning("torch: runs without a CUDA graph (%s)", str(error).splitlines()[0])
    return step
