"""Networks from the plain values of a model card."""

from __future__ import annotations

import pytest
import torch

from localizer_ros.networks.build import FAMILIES, build_network

# A small network of every family.
SPEC = {
    "encoder": "mobilenet_v3_small",
    "stride_padding": "symmetric",
    "height_px": 64,
    "width_px": 96,
    "head": "spatial",
    "hidden": 32,
    "dropout": 0.5,
    "anchors": 5,
    "orientation": "relative",
    "answer": "mean",
    "channels": 16,
    "memory": 3,
    "motion_hidden": 24,
    "aligned": True,
    "coordinate_width": 16,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_rebuilds_its_network_exactly(family: str) -> None:
    spec = {**SPEC, "family": family}
    torch.manual_seed(0)
    network, again = build_network(spec).eval(), build_network(spec).eval()
    again.load_state_dict(network.state_dict())
    inputs = [torch.randn(2, 3, 64, 96)]
    if family == "lsg":
        inputs += [torch.randn_like(state) for state in network.start(2)]
    elif family == "motion":
        inputs += [torch.rand(2, 8, 12) + 0.1, torch.randn(2, *network.state_shapes[0])]
    with torch.no_grad():
        for a, b in zip(network(*inputs), again(*inputs), strict=True):
            assert torch.equal(a, b) and torch.isfinite(a).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_value_of_a_spec_is_named(family: str) -> None:
    with pytest.raises(ValueError, match="'stride_padding' is missing"):
        build_network({"family": family, **{k: v for k, v in SPEC.items() if k != "stride_padding"}})
    with pytest.raises(ValueError, match="expected family posenet"):
        build_network({"family": "none"})
