"""Encoders by name, and the weights that fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from localizer_ros.networks.encoders.googlenet import GoogLeNet
from localizer_ros.networks.encoders.layers import Encoder, StridePadding
from localizer_ros.networks.encoders.mobilenet import V3_LARGE, V3_SMALL, MobileNetV2, MobileNetV3
from localizer_ros.networks.encoders.resnet import ResNet

ENCODERS: dict[str, Callable[[StridePadding], Encoder]] = {
    "resnet18": lambda padding: ResNet((2, 2, 2, 2), padding),
    "resnet34": lambda padding: ResNet((3, 4, 6, 3), padding),
    "googlenet": GoogLeNet,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": lambda padding: MobileNetV3(V3_SMALL, padding),
    "mobilenet_v3_large": lambda padding: MobileNetV3(V3_LARGE, padding),
}


def build_encoder(name: str, stride_padding: StridePadding = "symmetric") -> Encoder:
    """An encoder with random weights.

    Raises:
        ValueError: unknown name.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder: expected one of {', '.join(ENCODERS)}, got {name!r}")
    return ENCODERS[name](stride_padding)


def encoder_of_weights(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the largest encoder these torchvision-named weights fill, None when there is none."""
    best, most = None, 0
    for name in ENCODERS:
        with torch.device("meta"):
            wanted = build_encoder(name).state_dict()
        needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
        fits = needed <= weights.keys() and all(weights[k].shape == wanted[k].shape for k in needed)
        # ResNet-34 has every layer of ResNet-18 under the same name.
        if fits and len(needed) > most:
            best, most = name, len(needed)
    return best


def has_folded_norms(weights: Mapping[str, Tensor]) -> bool:
    """True when every batch norm has mean 0 and variance 1 (less epsilon): folded into the convolutions, as in weights
    converted from TensorFlow Lite. Such weights come from SAME padding, and their norms must stay frozen."""
    means = [v for k, v in weights.items() if k.endswith("running_mean")]
    variances = [v for k, v in weights.items() if k.endswith("running_var")]
    return (
        bool(means)
        and all(not v.any() for v in means)
        and all(bool((v - 1.0).abs().max() < 2e-3) for v in variances)
    )


def load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load torchvision-named weights, ignoring the classifier.

    Raises:
        ValueError: a weight is missing or of another shape; the message names the first.
    """
    wanted = encoder.state_dict()
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in weights:
            raise ValueError(f"weights: {key} is missing")
        if weights[key].shape != value.shape:
            raise ValueError(
                f"weights: {key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}"
            )
    encoder.load_state_dict({k: weights[k] for k in wanted if k in weights}, strict=False)
