"""Encoders by name: their sizes and strides, and the weights that fill them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from localizer_ros.networks.encoders.build import (
    ENCODERS,
    build_encoder,
    encoder_of_weights,
    has_folded_norms,
    load_encoder,
)

# Parameters without classifier, as published for torchvision's models less their last layers.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "googlenet": 5_599_904,
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 927_008,
    "mobilenet_v3_large": 2_971_952,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_size_and_strides_they_should(name: str) -> None:
    encoder = build_encoder(name).eval()
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]
    for padding in ("symmetric", "same"):
        features = build_encoder(name, padding).eval()(torch.zeros(1, 3, 64, 96))
        assert features.fine.shape == (1, encoder.fine_channels, 8, 12)
        assert features.coarse.shape == (1, encoder.coarse_channels, 2, 3)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_find_their_encoder_and_a_missing_key_is_named(name: str) -> None:
    weights = build_encoder(name).state_dict()
    assert encoder_of_weights({**weights, "classifier.1.weight": torch.zeros(1)}) == name
    key = next(k for k in weights if k.endswith("weight"))
    broken = {k: v for k, v in weights.items() if k != key}
    assert encoder_of_weights(broken) is None
    with pytest.raises(ValueError, match=key):
        load_encoder(build_encoder(name), broken)


def test_imagenet_weights_load_with_folded_norms(shared_dir: Path) -> None:
    weights = load_file(shared_dir / "weights" / "mobilenet_v2_imagenet.safetensors")
    assert encoder_of_weights(weights) == "mobilenet_v2"
    assert has_folded_norms(weights)
    assert not has_folded_norms({**weights, "features.0.1.running_mean": torch.ones(32)})
