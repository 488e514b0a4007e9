"""Scenes of every learned family: trained for a moment, localised in, and the geometry behind scene coordinates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK

from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.runtime import LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.methods import METHODS
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, ConfigError
from localizer_ros.datasets.source import FrameSource
from localizer_ros.localization.learned.scene_coordinates import CELL_PX, RefinedCamera, pose_from_coordinates
from localizer_ros.localization.localizer import open_localizer
from localizer_ros.mapping.build import build_scene
from localizer_ros.networks.build import build_network
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.poses import Pose
from localizer_ros.training.data import IMAGENET_MEAN, IMAGENET_STD, PosedImages, motion_vector
from localizer_ros.training.module import NetworkTraining, predict, residuals
from localizer_ros.training.network_setup import make_network
from localizer_ros.training.objectives import CoordinateObjective, Observed
from localizer_ros.training.virtual_views import SceneDepth

H, W = 24, 32
NETWORK_METHODS = [method.name for method in METHODS.values() if method.trains_network]
K = np.array([[210.0, 0.0, 126.0], [0.0, 208.0, 97.0], [0.0, 0.0, 1.0]])


def some_coordinates(rng: np.random.Generator, refined_camera: RefinedCamera, T_map_cam: SE3) -> np.ndarray:
    """(3, h, w) map coordinates that the cells of a camera see, at depths of 1 to 4 m."""
    xs, ys = np.meshgrid(*(np.arange(n) * CELL_PX + (CELL_PX - 1) / 2 for n in (W, H)))
    rays = np.linalg.inv(refined_camera.K) @ np.stack([xs.ravel(), ys.ravel(), np.ones(H * W)])
    seen = (rays * rng.uniform(1.0, 4.0, H * W)).T
    return ((T_map_cam @ refined_camera.T_cam_refined) @ seen).T.reshape(3, H, W)


@pytest.fixture
def refined_camera(rng: np.random.Generator) -> RefinedCamera:
    return RefinedCamera(K, SE3.exp(rng.normal(0.0, 0.1, 6)))


def test_exact_coordinates_give_the_exact_pose(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    for _ in range(3):
        T_map_cam = SE3.exp(rng.normal(0.0, 1.0, 6))
        points = some_coordinates(rng, refined_camera, T_map_cam).astype(np.float32)
        found = pose_from_coordinates(points, np.zeros((H, W), np.float32), refined_camera)
        assert found is not None
        assert found.T_map_cam.distance_to(T_map_cam) < 1e-4
        assert found.T_map_cam.angle_to(T_map_cam) < 1e-4
        assert np.linalg.eigvalsh(found.covariance).min() > 0.0


def test_the_more_cells_disagree_the_less_sure_the_pose(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    points = some_coordinates(rng, refined_camera, SE3.identity()) + rng.normal(0.0, 0.01, (3, H, W))
    order, away = rng.random((H, W)), rng.normal(0.0, 1.0, (3, H, W))
    sigmas = []
    for share in (0.0, 0.2, 0.4, 0.6):
        mixed = np.where(order < share, points + away, points).astype(np.float32)
        found = pose_from_coordinates(mixed, np.zeros((H, W), np.float32), refined_camera)
        assert found is not None
        sigmas.append(np.sqrt(np.linalg.det(found.covariance) ** (1 / 6)))
    # With 60 % off the residuals of the others are what they were, but sixteen times the spread is believed.
    assert np.all(np.diff(sigmas) > 0) and sigmas[-1] > 16.0 * sigmas[0]


def test_wrong_and_unsure_cells_do_not_matter(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    T_map_cam = SE3.exp(rng.normal(0.0, 1.0, 6))
    points = some_coordinates(rng, refined_camera, T_map_cam)
    log_sigma = np.full((H, W), -3.0, np.float32)
    # Wrong and sure: RANSAC's business. Wrong and unsure: never looked at.
    wrong, unsure = rng.random((H, W)) < 0.3, np.zeros((H, W), bool)
    unsure[:, : W // 4] = True
    points[:, wrong] += rng.normal(0.0, 2.0, (3, wrong.sum()))
    points[:, unsure] += 5.0
    log_sigma[unsure] = 0.0
    found = pose_from_coordinates(points.astype(np.float32), log_sigma, refined_camera)
    assert found is not None
    assert found.T_map_cam.distance_to(T_map_cam) < 1e-3


def test_noise_and_a_corner_alone_are_no_answer(
    rng: np.random.Generator, refined_camera: RefinedCamera
) -> None:
    flat = np.zeros((H, W), np.float32)
    noise = rng.normal(0.0, 2.0, (3, H, W)).astype(np.float32)
    assert pose_from_coordinates(noise, flat, refined_camera) is None
    points = some_coordinates(rng, refined_camera, SE3.identity()).astype(np.float32)
    keep = np.zeros((H, W), bool)
    keep[:6, :8] = True
    corner = np.where(keep, points, noise)
    assert pose_from_coordinates(corner, flat, refined_camera) is None


def test_refined_camera_survive_a_model_card(refined_camera: RefinedCamera) -> None:
    again = RefinedCamera.from_dict(refined_camera.to_dict())
    np.testing.assert_allclose(again.K, refined_camera.K)
    assert again.T_cam_refined.distance_to(refined_camera.T_cam_refined) < 1e-12


def some_data(rng: np.random.Generator, count: int = 12) -> PosedImages:
    depth = SceneDepth(
        np.full((count, 16, 24), 0.5, np.float16), np.diag([70.0, 70.0, 1.0]), SE3.identity(), 2.0
    )
    return PosedImages(
        rng.integers(0, 256, (count, 64, 96, 3), np.uint8),
        tuple(SE3.exp(rng.normal(0, 0.5, 6)) for _ in range(count)),
        np.arange(count) // 6,
        tuple(str(i) for i in range(count)),
        Camera.pinhole(96, 64, 70.0, 70.0, 47.5, 31.5),
        depth,
    )


def test_coordinate_losses_vanish_at_the_truth(rng: np.random.Generator) -> None:
    data = some_data(rng)
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
    data = some_data(rng)
    torch.manual_seed(0)
    config = config_from_dict(MapConfig, {"method": "posenet", "network": TINY_NETWORK})
    _, network, objective = make_network(config, None, data)
    training = NetworkTraining(network, objective, IMAGENET_MEAN, IMAGENET_STD)
    losses = training(a_batch(data))
    encoder = list(network.encoder.parameters())
    of_motion, of_depth = (
        torch.autograd.grad(losses[name], encoder, retain_graph=True, allow_unused=True)
        for name in ("motion", "depth")
    )
    assert losses["motion"] != losses["depth"] and any(g is not None and g.any() for g in of_depth)
    for a, b in zip(of_motion, of_depth, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


@pytest.mark.parametrize(("method", "loss"), [("posenet", "sigma"), ("posenet", "mapnet"), ("lsg", "sigma")])
def test_learned_balances_start_where_the_size_of_the_scene_says(
    method: str, loss: str, rng: np.random.Generator
) -> None:
    data = some_data(rng)
    config = config_from_dict(
        MapConfig, {"method": method, "network": TINY_NETWORK, "posenet": {"loss": loss}}
    )
    spread = float(np.sqrt(np.stack([T.t for T in data.poses]).var(0).mean()))
    larger = replace(data, poses=tuple(replace(T, t=10.0 * T.t) for T in data.poses))
    for size, scene in ((spread, data), (10.0 * spread, larger)):
        _, _, objective = make_network(config, None, scene)
        assert isinstance(objective, torch.nn.Module)
        starts = [
            float(value.detach().exp()) for name, value in objective.named_parameters() if "s_x" in name
        ]
        assert starts and starts == pytest.approx([0.25 * size] * len(starts), rel=1e-4)


@pytest.mark.parametrize(
    "method, odometry", [*((method, "aligned") for method in NETWORK_METHODS), ("lsg", "fused")]
)
def test_losses_reach_every_part_and_answers_cover_every_frame(
    method: str, odometry: str, rng: np.random.Generator
) -> None:
    data = some_data(rng)
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
    training = NetworkTraining(network, objective, IMAGENET_MEAN, IMAGENET_STD)
    losses = training(a_batch(data))
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    outputs = predict(training, data)
    assert all(len(value) == len(data) for value in outputs.values())
    errors = residuals(outputs, data)
    assert errors.absolute_N6.shape == (12, 6) and errors.motion_M6.shape == (10, 6)


@pytest.mark.parametrize(
    "method, odometry", [("lsg", "aligned"), ("lsg", "fused"), ("scene_coords", "aligned")]
)
def test_a_scene_of_a_family_localises(
    method: str, odometry: str, tiny_source: FrameSource, tmp_path: Path
) -> None:
    config = config_from_dict(
        MapConfig,
        {
            "method": method,
            "network": TINY_NETWORK,
            "lsg": {"odometry": odometry},
            "scene_coords": {"width": 32},
            "structure": {
                "features": {"max_keypoints": 400},
                "keyframes": {"max_images": 12},
                "retrieval": {"words": 16},
            },
            "training": {
                "epochs": 1,
                "batch_size": 8,
                "sequence": 3,
                "stored_views": 1,
                "augmentation": {"virtual_move": 0.0},
            },
        },
    )
    facts = build_scene(tiny_source, "all", config, tmp_path / "scene")
    assert facts["parity"]["openvino_fp32"]["t_m"] < 1e-3
    localizer = open_localizer(tmp_path / "scene", LocalizerConfig())
    outputs = [localizer.process(tiny_source.read(index)) for index in range(4)]
    localizer.close()
    if method == "lsg":
        assert all(output.absolute is not None for output in outputs)
    # Trained for a moment, coordinates agree on nothing: no answer, with the reason, and never a wrong one.
    assert all(output.absolute is not None or output.reason for output in outputs)
    assert outputs[1].relative is not None


def test_scene_coordinates_without_a_map_are_an_error(rng: np.random.Generator) -> None:
    data = some_data(rng)
    config = config_from_dict(MapConfig, {"method": "scene_coords", "network": TINY_NETWORK})
    without = PosedImages(data.images, data.poses, data.sequences, data.names, data.camera)
    with pytest.raises(ConfigError, match="needs a map of points"):
        make_network(config, None, without)
