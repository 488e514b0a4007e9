"""A network from the plain values a model card holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from localizer_ros.networks.anchors import AnchorHead
from localizer_ros.networks.descriptor import GlobalDescriptor
from localizer_ros.networks.encoders.build import build_encoder
from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.heads import Neck, PoseHead, build_neck
from localizer_ros.networks.lsg import Lsg, LsgSize
from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.motion_step import MotionStep
from localizer_ros.networks.posenet import PoseNet
from localizer_ros.networks.scene_coords import SceneCoordinates

Spec = dict[str, Any]


def _encoder(spec: Spec) -> Encoder:
    return build_encoder(spec["encoder"], spec["stride_padding"])


def _size_hw(spec: Spec) -> tuple[int, int]:
    return spec["height_px"], spec["width_px"]


def _neck(spec: Spec, encoder: Encoder) -> Neck:
    cells = spec["height_px"] * spec["width_px"] // 1024
    return build_neck(spec["head"], encoder.coarse_channels, cells, spec["hidden"])


def _posenet(spec: Spec) -> nn.Module:
    encoder = _encoder(spec)
    return PoseNet(encoder, PoseHead(_neck(spec, encoder), spec["dropout"]))


def _anchors(spec: Spec) -> nn.Module:
    encoder = _encoder(spec)
    head = AnchorHead(
        _neck(spec, encoder), spec["dropout"], spec["anchors"], spec["orientation"], spec["answer"]
    )
    return PoseNet(encoder, head)


def _lsg(spec: Spec) -> nn.Module:
    size = LsgSize(**{name: spec[name] for name in LsgSize._fields})
    return Lsg(_encoder(spec), size, _size_hw(spec), spec["dropout"], spec["aligned"])


def _scene_coords(spec: Spec) -> nn.Module:
    return SceneCoordinates(_encoder(spec), spec["coordinate_width"])


def _motion(spec: Spec) -> nn.Module:
    encoder = _encoder(spec)
    return MotionStep(MotionHead(encoder.fine_channels, encoder.coarse_channels), _size_hw(spec))


def _descriptor(spec: Spec) -> nn.Module:
    return GlobalDescriptor(_encoder(spec))


# Every family needs encoder and stride_padding, all but the descriptor height_px, width_px, head, hidden and dropout;
# anchors also anchors, orientation and answer; lsg also channels, memory, motion_hidden and aligned; scene_coords
# also coordinate_width.
FAMILIES: dict[str, Callable[[Spec], nn.Module]] = {
    "posenet": _posenet,
    "anchors": _anchors,
    "lsg": _lsg,
    "scene_coords": _scene_coords,
    "motion": _motion,
    "descriptor": _descriptor,
}


def build_network(spec: Spec) -> nn.Module:
    """The network ``spec["family"]`` names, with random weights.

    Raises:
        ValueError: unknown family, a missing value, or one it cannot have.
    """
    family = spec.get("family")
    if family not in FAMILIES:
        raise ValueError(f"network: expected family {', '.join(FAMILIES)}, got {family!r}")
    try:
        return FAMILIES[family](spec)
    except KeyError as error:
        raise ValueError(f"network: {error} is missing") from error
