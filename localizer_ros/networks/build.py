"""A network from the plain values a model card holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from localizer_ros.networks.backbones import build_encoder
from localizer_ros.networks.descriptor import GlobalDescriptor
from localizer_ros.networks.posenet import PoseNet


def _posenet(spec: dict[str, Any]) -> nn.Module:
    return PoseNet(
        build_encoder(spec["encoder"], spec["stride_padding"]),
        (spec["height_px"], spec["width_px"]),
        spec["hidden"],
        spec["dropout"],
    )


def _descriptor(spec: dict[str, Any]) -> nn.Module:
    return GlobalDescriptor(build_encoder(spec["encoder"], spec["stride_padding"]))


FAMILIES: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "posenet": _posenet,
    "descriptor": _descriptor,
}


def build_network(spec: dict[str, Any]) -> nn.Module:
    """The network ``spec["family"]`` names, with random weights.

    Raises:
        ValueError: unknown family or a missing value.
    """
    family = spec.get("family")
    if family not in FAMILIES:
        raise ValueError(f"network: expected family {', '.join(FAMILIES)}, got {family!r}")
    try:
        return FAMILIES[family](spec)
    except KeyError as error:
        raise ValueError(f"network: {error} is missing") from error
