"""Losses by geometry: nothing at the truth, and downhill to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK
from training_images import SMALL, data_with_depth, some_data

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.poses import Pose
from localizer_ros.training.network_setup import make_network
from localizer_ros.training.objectives import CoordinateObjective, Observed
from localizer_ros.training.virtual_views import SceneDepth


def test_the_geometric_loss_is_the_distance_in_the_image_and_leads_to_the_truth(
    rng: np.random.Generator,
) -> None:
    T_cam_refined = SE3.exp([0.1, -0.2, 0.1, 0.05, 0.02, 0.0])
    data = replace(
        some_data(12, rng),
        depth=SceneDepth(np.full((12, 12, 16), 0.5, np.float16), SMALL.K, T_cam_refined, 2.0),
    )
    config = config_from_dict(
        MapConfig,
        {
            "method": "posenet",
            "network": {"encoder": "mobilenet_v3_small", "width_px": 64, "height_px": 64, "hidden": 16},
            "posenet": {"loss": "geometric"},
            "training": {"fine_tune": True},
        },
    )
    _, network, objective = make_network(config, None, data)
    T = data.poses[0]
    true = torch.from_numpy(T.t).float(), torch.from_numpy(T.quaternion_xyzw()).float()
    inverse_depth = torch.from_numpy(rng.uniform(0.2, 1.0, (1, 6, 8)).astype(np.float32))
    inverse_depth[0, 0] = 0.0

    def losses(t: torch.Tensor, q: torch.Tensor) -> dict[str, torch.Tensor]:
        network.absolute.forward = lambda coarse: (t[None], q[None], torch.zeros(1, 6))
        observed = Observed(
            Features(torch.zeros(1), torch.zeros(1)), inverse_depth, Pose(*(x[None, None] for x in true))
        )
        return objective.losses(network, observed)

    assert losses(*true)["reprojection_px"] < 1e-3
    off = SE3.exp([0.03, -0.05, 0.02, 0.1, -0.06, 0.08])
    T_off = T @ off
    t, q = torch.from_numpy(T_off.t).float(), torch.from_numpy(T_off.quaternion_xyzw()).float()
    # The same by hand: points of the true camera seen from the other one.
    ys, xs = np.mgrid[0:6, 0:8] * 8 + 3.5
    pixels = np.stack([xs.ravel(), ys.ravel(), np.ones(48)])
    points = (np.linalg.inv(SMALL.K) @ pixels / np.maximum(inverse_depth.numpy().ravel(), 0.1)).T
    seen = ((T_off @ T_cam_refined).inverse() @ (T @ T_cam_refined) @ points) @ SMALL.K.T
    distance = np.abs(seen[:, :2] / seen[:, 2:] - pixels[:2].T).sum(1)
    assert losses(t, q)["reprojection_px"].item() == pytest.approx(distance[8:].mean(), rel=1e-4)
    pose = [t.requires_grad_(), q.requires_grad_()]
    optimizer = torch.optim.Adam(pose, 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        losses(*pose)["total"].backward()
        optimizer.step()
    left = SE3.from_quaternion(t.detach().numpy(), q.detach().numpy()).inverse() @ T
    assert np.linalg.norm(left.t) < 0.02 and np.degrees(left.angle_to(SE3.identity())) < 0.5


def test_coordinate_losses_vanish_at_the_truth(rng: np.random.Generator) -> None:
    data = data_with_depth(rng)
    config = config_from_dict(MapConfig, {"method": "scene_coords", "network": TINY_NETWORK})
    _, network, objective = make_network(config, None, data)
    assert isinstance(objective, CoordinateObjective)
    T = data.poses[0]
    true = Pose(
        torch.from_numpy(T.t[None, None]).float(), torch.from_numpy(T.quaternion_xyzw()[None, None]).float()
    )
    q = torch.rand(1, 8, 12) * 0.5 + 0.25
    rays = network.motion.rays(8, 12).numpy()
    points = (T @ (rays / q.numpy().reshape(-1, 1))).T.reshape(1, 3, 8, 12)

    def losses(points: np.ndarray) -> dict[str, torch.Tensor]:
        answer = torch.from_numpy(points).float(), torch.zeros(1, 8, 12)
        network.coordinates.forward = lambda fine, coarse: answer
        return objective.losses(network, Observed(Features(torch.zeros(1), torch.zeros(1)), q, true))

    at_truth, off = losses(points), losses(points + 0.1)
    assert at_truth["distance"] < 1e-3 and at_truth["reprojection"] < 1e-3
    assert off["distance"] > 0.5 and off["reprojection"] > 0.5
