"""PyTorch back end: rebuilds the network from its card and weights. The only file here that imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from localizer_ros.core.config import BackendConfig
from localizer_ros.core.types import BackendError, SceneError
from localizer_ros.inference.backend import ModelCard, StateKeeper, Tensors
from localizer_ros.networks.build import build_network

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """See :class:`localizer_ros.inference.backend.Backend`."""

    name = "torch"

    def __init__(self, folder: Path, card: ModelCard, config: BackendConfig) -> None:
        if config.precision not in _DTYPES:
            raise BackendError(
                f"torch: precision {config.precision} is not supported; take fp32, fp16 or bf16"
            )
        self.card = card
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = _DTYPES[config.precision]
        if config.threads:
            torch.set_num_threads(config.threads)
        network = build_network(card.network)
        path = folder / f"{card.name}.safetensors"
        try:
            network.load_state_dict(load_file(path))
        except (RuntimeError, OSError) as error:
            raise SceneError(f"{path}: does not fit its card ({str(error).splitlines()[0]})") from error
        self._network = network.eval().to(self._device, self._dtype, memory_format=torch.channels_last)
        self._states = StateKeeper(card)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """See the protocol."""
        given = self._states.inputs(inputs)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(given[spec.name])).to(self._device, self._dtype)
            for spec in self.card.inputs
        ]
        answers = self._network(*tensors)
        return self._states.keep(
            {
                spec.name: answer.float().cpu().numpy()
                for spec, answer in zip(self.card.outputs, answers, strict=True)
            }
        )

    def reset(self) -> None:
        """See the protocol."""
        self._states.reset()

    def close(self) -> None:
        """See the protocol."""
        del self._network
