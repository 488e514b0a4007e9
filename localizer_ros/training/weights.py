"""Weights of a file: what they fit, and into which parts of a network they go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from localizer_ros.core.types import ConfigError
from localizer_ros.networks.encoders.build import encoder_of_weights, has_folded_norms, load_encoder
from localizer_ros.networks.scene_network import SceneNetwork

# Prefix of the encoder's weights in a network of ours.
ENCODER = "encoder."


@dataclass(frozen=True)
class LoadedWeights:
    """Weights of a file and what they ask of the network.

    Attributes:
        encoder: name of the encoder they fit.
        stride_padding: of its stride-2 convolutions.
        tensors: of the encoder, by torchvision's names.
        others: of the rest of a network of ours, by its names; empty for a file of an encoder alone.
    """

    encoder: str
    stride_padding: str
    tensors: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]


def load_weights(path: Path, wanted: str) -> LoadedWeights:
    """Encoder weights, torchvision-named or of a network of ours, of a safetensors file.

    Args:
        path: the file.
        wanted: name of the encoder, or ``auto`` to take the one they fit.

    Raises:
        ConfigError: not a safetensors file, or it fits no encoder, or not the wanted one.
    """
    try:
        everything = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file ({error})") from error
    inside = {k.removeprefix(ENCODER): v for k, v in everything.items() if k.startswith(ENCODER)}
    tensors = inside or everything
    fits = encoder_of_weights(tensors)
    if fits is None:
        raise ConfigError(f"{path}: the keys fit none of the encoders")
    if wanted not in ("auto", fits):
        raise ConfigError(f"{path}: holds weights of {fits}, but network.encoder is {wanted}")
    others = {k: v for k, v in everything.items() if not k.startswith(ENCODER)} if inside else {}
    return LoadedWeights(fits, "same" if has_folded_norms(tensors) else "symmetric", tensors, others)


def start_from(network: SceneNetwork, loaded: LoadedWeights, everything: bool) -> None:
    """Load weights into an untrained network.

    Args:
        network: of :func:`make_network`.
        loaded: weights of its encoder, or of a network of ours.
        everything: go on from that network, heads included; otherwise the head of its family is trained anew, and only
            the motion head starts as another network of the same place left it.

    Raises:
        ConfigError: everything is wanted, and the weights are not those of such a network.
    """
    own = network.state_dict()
    if everything:
        whole = {**{f"{ENCODER}{k}": v for k, v in loaded.tensors.items()}, **loaded.others}
        wrong = [k for k, v in own.items() if k not in whole or whole[k].shape != v.shape] + sorted(
            whole.keys() - own
        )
        if wrong:
            raise ConfigError(
                f"training.fine_tune: the weights are of another network (first difference: {wrong[0]}); method and "
                "network settings must be those it was trained with"
            )
        network.load_state_dict(whole)
        return
    load_encoder(network.encoder, loaded.tensors)
    matching = {
        k: v
        for k, v in loaded.others.items()
        if k.startswith("motion.") and k in own and v.shape == own[k].shape
    }
    network.load_state_dict(matching, strict=False)
