"""One way to run a network, whatever runs it: the protocol of back ends, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.types import BackendError
from localizer_ros.inference.model_card import ModelCard

Tensors = dict[str, NDArray[np.float32]]


class Backend(Protocol):
    """A loaded network. Created, used and closed in one thread.

    Attributes:
        name: e.g. ``openvino``.
        card: what it takes and gives.
    """

    name: str
    card: ModelCard

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """The card's outputs but for the states, by name, after one call; the back end adds and keeps the states.

        Args:
            inputs: the card's inputs but the states, by name, float32 of its shapes.

        Raises:
            BackendError: an input is missing or of another shape, or the network fails.
        """
        ...

    def reset(self) -> None:
        """Set the states to zero."""
        ...

    def close(self) -> None:
        """Release the engine."""
        ...


def check_inputs(card: ModelCard, given: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise BackendError unless a caller gives every input but the states, in its shape."""
    for spec in card.inputs:
        if spec.name in card.states:
            continue
        if spec.name not in given:
            raise BackendError(f"{card.name}: input {spec.name} is missing")
        if given[spec.name].shape != spec.shape:
            raise BackendError(
                f"{card.name}: input {spec.name}: expected shape {spec.shape}, got {given[spec.name].shape}"
            )


class StateKeeper:
    """The states of a recurrent network between two calls.

    Args:
        card: names the states.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._shapes = {spec.name: spec.shape for spec in card.inputs}
        self.reset()

    def reset(self) -> None:
        """Zero states."""
        self._states = {name: np.zeros(self._shapes[name], np.float32) for name in self._card.states}

    def inputs(self, given: Mapping[str, NDArray[np.float32]]) -> Tensors:
        """The caller's inputs and the states. Raises BackendError where an input is missing or of another shape."""
        check_inputs(self._card, given)
        return {**given, **self._states}

    def keep(self, outputs: Tensors) -> Tensors:
        """The outputs but for the states, which are kept for the next call."""
        # Back ends may reuse their output memory, so a state is copied.
        self._states = {name: np.array(outputs[out]) for name, out in self._card.states.items()}
        states = set(self._card.states.values())
        return {name: value for name, value in outputs.items() if name not in states}
