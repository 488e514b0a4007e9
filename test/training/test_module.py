"""A network in training: what learns from what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK
from training_images import data_with_depth

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.methods import METHODS
from localizer_ros.networks.build import build_network
from localizer_ros.training.data import PosedImages, motion_vector
from localizer_ros.training.module import NetworkTraining
from localizer_ros.training.network_setup import make_network
from localizer_ros.training.validation import predict, residuals


def a_batch(data: PosedImages) -> dict[str, torch.Tensor]:
    """Two sequences of two frames."""
    rel = np.stack([motion_vector(data.poses[i], data.poses[i + 1]) for i in (0, 2)])
    poses = data.poses[:4]
    return {
        "images": torch.from_numpy(data.images[:4].transpose(0, 3, 1, 2).copy()).unflatten(0, (2, 2)),
        "t": torch.from_numpy(np.stack([T.t for T in poses])).float().unflatten(0, (2, 2)),
        "q": torch.from_numpy(np.stack([T.quaternion_xyzw() for T in poses])).float().unflatten(0, (2, 2)),
        "rel": torch.from_numpy(rel).float(),
        "inverse_depth": torch.full((2, 8, 12), 0.5),
    }


def test_the_encoder_learns_depth_from_its_labels_and_not_from_alignments(rng: np.random.Generator) -> None:
    data = data_with_depth(rng)
    torch.manual_seed(0)
    config = config_from_dict(MapConfig, {"method": "posenet", "network": TINY_NETWORK})
    _, network, objective = make_network(config, None, data)
    training = NetworkTraining(network, objective)
    losses = training(a_batch(data))
    encoder = list(network.encoder.parameters())
    of_motion, of_depth = (
        torch.autograd.grad(losses[name], encoder, retain_graph=True, allow_unused=True)
        for name in ("motion", "depth")
    )
    assert losses["motion"] != losses["depth"] and any(g is not None and g.any() for g in of_depth)
    for a, b in zip(of_motion, of_depth, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


@pytest.mark.parametrize(
    "method, odometry",
    [*((method.name, "aligned") for method in METHODS.values() if method.trains_network), ("lsg", "fused")],
)
def test_losses_reach_every_part_and_answers_cover_every_frame(
    method: str, odometry: str, rng: np.random.Generator
) -> None:
    data = data_with_depth(rng)
    config = config_from_dict(
        MapConfig,
        {
            "method": method,
            "network": TINY_NETWORK,
            "anchors": {"every": 4},
            "lsg": {"odometry": odometry},
            "scene_coords": {"width": 16},
        },
    )
    torch.manual_seed(0)
    spec, network, objective = make_network(config, None, data)
    build_network(spec).load_state_dict(network.state_dict())
    training = NetworkTraining(network, objective)
    losses = training(a_batch(data))
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    predicted = predict(training, data)
    assert all(len(value) == len(data) for value in vars(predicted).values())
    errors = residuals(predicted, data)
    assert errors.absolute_N6.shape == (12, 6) and errors.motion_M6.shape == (10, 6)
