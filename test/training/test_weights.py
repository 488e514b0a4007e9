"""Weights of a file: what they fit, and what they start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK
from safetensors.torch import load_file
from training_images import SMALL, some_data

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import ConfigError
from localizer_ros.networks.build import build_network
from localizer_ros.training.network_setup import make_network
from localizer_ros.training.objectives import GeometricObjective
from localizer_ros.training.virtual_views import SceneDepth
from localizer_ros.training.weights import load_weights, start_from


@pytest.mark.parametrize(
    ("content", "message"), [(b"not safetensors", "not a readable safetensors"), (None, "not a readable")]
)
def test_bad_weights_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_weights(path, "auto")


def test_weights_of_another_encoder_are_refused(shared_dir: Path) -> None:
    path = shared_dir / "weights" / "mobilenet_v2_imagenet.safetensors"
    assert load_weights(path, "auto").stride_padding == "same"
    with pytest.raises(ConfigError, match="holds weights of mobilenet_v2"):
        load_weights(path, "resnet18")


def test_fine_tuning_goes_on_from_the_whole_network_or_says_why_not(
    tiny_scene: Path, rng: np.random.Generator
) -> None:
    path = tiny_scene / "networks" / "posenet.safetensors"
    loaded = load_weights(path, "auto")
    data = replace(
        some_data(12, rng),
        depth=SceneDepth(np.full((12, 12, 16), 0.5, np.float16), SMALL.K, SE3.identity(), 2.0),
    )
    settings = {"method": "posenet", "network": TINY_NETWORK, "training": {"fine_tune": True}}
    config = config_from_dict(MapConfig, {**settings, "posenet": {"loss": "geometric"}})
    spec, network, objective = make_network(config, loaded, data)
    assert isinstance(objective, GeometricObjective)
    written = load_file(path)
    start_from(network, loaded, everything=False)
    assert not torch.equal(network.absolute.position.weight, written["absolute.position.weight"])
    assert torch.equal(network.motion.depth[0].weight, written["motion.depth.0.weight"])
    start_from(network, loaded, everything=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, written[name]), name
    other = build_network({**spec, "hidden": 64})
    with pytest.raises(ConfigError, match=r"another network .first difference: absolute\.neck"):
        start_from(other, loaded, everything=True)
    with pytest.raises(ConfigError, match="geometric needs a map of points"):
        make_network(config, loaded, some_data(12, rng))
