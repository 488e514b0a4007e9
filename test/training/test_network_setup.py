"""Networks told where and how large the scene is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK
from training_images import data_with_depth

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.types import ConfigError
from localizer_ros.training.data import PosedImages
from localizer_ros.training.network_setup import make_network


@pytest.mark.parametrize(("method", "loss"), [("posenet", "sigma"), ("posenet", "mapnet"), ("lsg", "sigma")])
def test_learned_balances_start_where_the_size_of_the_scene_says(
    method: str, loss: str, rng: np.random.Generator
) -> None:
    data = data_with_depth(rng)
    config = config_from_dict(
        MapConfig, {"method": method, "network": TINY_NETWORK, "posenet": {"loss": loss}}
    )
    sigma_m = float(np.sqrt(np.stack([T.t for T in data.poses]).var(0).mean()))
    larger = replace(data, poses=tuple(replace(T, t=10.0 * T.t) for T in data.poses))
    for size, scene in ((sigma_m, data), (10.0 * sigma_m, larger)):
        _, _, objective = make_network(config, None, scene)
        assert isinstance(objective, torch.nn.Module)
        starts = [
            float(value.detach().exp()) for name, value in objective.named_parameters() if "s_x" in name
        ]
        assert starts and starts == pytest.approx([0.25 * size] * len(starts), rel=1e-4)


def test_scene_coordinates_without_a_map_are_an_error(rng: np.random.Generator) -> None:
    data = data_with_depth(rng)
    config = config_from_dict(MapConfig, {"method": "scene_coords", "network": TINY_NETWORK})
    without = PosedImages(data.images, data.poses, data.sequences, data.names, data.camera)
    with pytest.raises(ConfigError, match="needs a map of points"):
        make_network(config, None, without)
