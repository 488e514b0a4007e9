"""Poses and motions of a network: turned views, Monte-Carlo dropout, covariances, frames out of distribution."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from localizer_ros.core.config.runtime import BackendConfig, LocalizerConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.files import sha256_of
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import BackendError, Camera, ConfigError, Frame, LocalizerOutput, Status
from localizer_ros.datasets.source import FrameSource
from localizer_ros.export import stream_card
from localizer_ros.geometry.refined_camera import RefinedCamera
from localizer_ros.inference.backend import Tensors
from localizer_ros.inference.model_card import ModelCard, TensorSpec, card_path
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.inference.open_backend import open_backend
from localizer_ros.localization.learned.front_end import MOTION_CORRELATION, NetworkFrontEnd, turned_views
from localizer_ros.localization.learned.out_of_distribution import (
    MAX_SCORE,
    MAX_START_SCORE,
    TrainingDistribution,
    motion_sigma_inflation,
)
from localizer_ros.localization.localizer import Localizer, open_localizer
from localizer_ros.networks.build import build_network
from localizer_ros.smoothing import open_smoother

CAMERA = Camera.pinhole(96, 64, 80.0, 80.0, 47.5, 31.5)
SPEC = {
    "encoder": "mobilenet_v3_small",
    "stride_padding": "symmetric",
    "width_px": 96,
    "height_px": 64,
    "head": "pooled",
    "hidden": 64,
    "anchors": 5,
    "orientation": "relative",
    "answer": "mean",
}
TORCH = BackendConfig(kind="torch", threads=1)


def network_folder(folder: Path, family: str, dropout: float) -> Path:
    """A network with random weights, without an ONNX file."""
    torch.manual_seed(0)
    spec = {**SPEC, "family": family, "dropout": dropout}
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # features of ordinary size
            module.momentum = 1.0
    network.train()(torch.randn(8, 3, 64, 96))
    card = stream_card(family, spec, network.eval(), CAMERA, (1.0,) * 4, {})
    path = folder / f"{family}.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    msgspec.structs.replace(card, weights_sha256=sha256_of(path)).write(card_path(folder, family))
    return folder


@pytest.mark.parametrize("family", ["posenet", "anchors"])
def test_samples_scatter_about_the_answer_and_are_repeatable(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = network_folder(tmp_path, family, 0.3)
    image = {"image": rng.normal(size=(1, 3, 64, 96)).astype(np.float32)}
    plain = open_backend(folder, family, TORCH).run(image)
    assert "covariance" not in plain
    backends = [open_backend(folder, family, TORCH, samples=400) for _ in range(2)]
    before = torch.random.get_rng_state()
    sampled, again = (backend.run(image) for backend in backends)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in sampled.items():
        np.testing.assert_array_equal(value, again[name])
    covariance = sampled["covariance"][0]
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-7)
    assert np.linalg.eigvalsh(covariance).min() > -1e-6 and covariance[3:, 3:].trace() > 0
    T_plain, T_mean = (SE3.from_quaternion(out["t"][0], out["q"][0]) for out in (plain, sampled))
    # Dropout keeps the mean of what is linear behind it; the mean of 400 samples is within 4 / 20 of their spread.
    error = (T_mean.inverse() @ T_plain).log()
    assert np.all(np.abs(error[3:]) < 0.2 * np.sqrt(np.diagonal(covariance)[3:]) + 0.02)
    np.testing.assert_array_equal(sampled["log_sigma"], plain["log_sigma"])


def test_a_network_that_cannot_be_sampled_is_an_error(tmp_path: Path, tiny_scene: Path) -> None:
    folder = network_folder(tmp_path, "posenet", 0.0)
    with pytest.raises(BackendError, match="trained with dropout"):
        open_backend(folder, "posenet", TORCH, samples=5)
    with pytest.raises(BackendError, match="at least 2, got 1"):
        open_backend(folder, "posenet", TORCH, samples=1)
    for kind in ("openvino", "auto"):
        with pytest.raises(BackendError, match=r"openvino has no dropout; set backend\.kind=torch"):
            open_backend(tiny_scene / "networks", "posenet", BackendConfig(kind=kind), samples=5)


class Oracle:
    """In place of a network: knows the pose of the camera, and of each turned view, in order; off by a given error.

    Args:
        T_map_cam: the pose.
        errors: (views, 6) twists of the answers.
        refined_camera: of the image.
        log_sigma: (6,) of every answer.
    """

    name = "oracle"

    def __init__(
        self,
        T_map_cam: SE3,
        errors: NDArray[np.float64],
        refined_camera: RefinedCamera,
        log_sigma: NDArray[np.float64],
    ) -> None:
        shapes = {"t": (1, 3), "q": (1, 4), "log_sigma": (1, 6), "rel": (1, 6), "rel_log_sigma": (1, 6)}
        self.card = ModelCard(
            network="oracle.onnx",
            inputs=(TensorSpec("image", (1, 3, 64, 96)),),
            outputs=tuple(TensorSpec(name, shape) for name, shape in shapes.items()),
            states={},
            architecture={},
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            camera=CAMERA.to_dict(),
            refined_camera=refined_camera.to_dict(),
        )
        C = refined_camera.T_cam_refined
        turns = [SE3.identity(), *(SE3(R, np.zeros(3)) for R in turned_views(len(errors)))]
        self._poses = [
            T_map_cam @ C @ turn @ C.inverse() @ SE3.exp(error)
            for turn, error in zip(turns, errors, strict=True)
        ]
        self._log_sigma = log_sigma
        self.seen: list[NDArray[np.float32]] = []

    def run(self, image: NDArray[np.float32]) -> Tensors:
        self.seen.clear()
        return {**self.see(image), "rel": np.zeros((1, 6)), "rel_log_sigma": np.zeros((1, 6))}

    def see(self, image: NDArray[np.float32]) -> Tensors:
        T = self._poses[len(self.seen)]
        self.seen.append(image)
        return {"t": T.t[None], "q": T.quaternion_xyzw()[None], "log_sigma": self._log_sigma[None]}

    def reset(self) -> None: ...


@pytest.mark.parametrize("views", [1, 2, 9])
def test_poses_of_turned_views_are_those_of_the_frame(views: int, rng: np.random.Generator) -> None:
    T = SE3.exp(rng.normal(size=6))
    refined_camera = RefinedCamera(CAMERA.K, SE3.exp([0.2, -0.1, 0.3, 0.1, 0.05, -0.2]))
    oracle = Oracle(T, np.zeros((views, 6)), refined_camera, np.log([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    frame = Frame(0, rng.integers(0, 256, (64, 96, 3), np.uint8), CAMERA)
    found = NetworkFrontEnd(oracle, "posenet", views).observe(frame, None).absolute  # type: ignore[arg-type]
    assert len(oracle.seen) == views
    assert found.T_map_cam.distance_to(T) < 1e-9 and found.T_map_cam.angle_to(T) < 1e-7
    # Turns leave it as it is, but for the few degrees' lever of the extrinsics.
    np.testing.assert_allclose(np.diagonal(found.covariance), np.repeat([0.01, 0.04], 3), rtol=0.05)


def test_views_average_errors_and_their_scatter_is_uncertainty(rng: np.random.Generator) -> None:
    T = SE3.exp(rng.normal(size=6))
    errors = rng.normal(0.0, 0.02, (16, 6))
    oracle = Oracle(T, errors, RefinedCamera(CAMERA.K, SE3.identity()), np.full(6, np.log(1e-4)))
    frame = Frame(0, np.zeros((64, 96, 3), np.uint8), CAMERA)
    found = NetworkFrontEnd(oracle, "posenet", 16).observe(frame, None).absolute  # type: ignore[arg-type]
    left = np.linalg.norm((found.T_map_cam.inverse() @ T).log())
    assert left < 0.5 * np.median(np.linalg.norm(errors, axis=1))
    np.testing.assert_allclose(np.diagonal(found.covariance), 0.02**2, rtol=0.9)


def test_motions_have_the_covariance_that_the_network_answers(rng: np.random.Generator) -> None:
    root = rng.normal(size=(6, 6))
    correlation = np.corrcoef(root @ root.T + np.eye(6))
    oracle = Oracle(SE3.identity(), np.zeros((1, 6)), RefinedCamera(CAMERA.K, SE3.identity()), np.zeros(6))
    frames = [Frame(stamp, np.zeros((64, 96, 3), np.uint8), CAMERA) for stamp in (0, 33_000_000)]
    run, log_sigma = oracle.run, np.log([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    by_depth = rng.normal(0.0, 0.1, 6)
    tells = {"rel_correlation": correlation[None], "rel_depth_error": by_depth[None]}
    for told in ({}, tells):
        oracle.run = lambda image, told=told: {**run(image), "rel_log_sigma": log_sigma[None], **told}  # type: ignore[method-assign]
        front_end = NetworkFrontEnd(oracle, "posenet")  # type: ignore[arg-type]
        covariance = [front_end.observe(frame, None) for frame in frames][1].relative.covariance
        S = np.diag(np.exp(log_sigma))
        whole = S @ correlation @ S + np.outer(by_depth, by_depth)
        half = MOTION_CORRELATION * whole + (1.0 - MOTION_CORRELATION) * np.diag(np.diagonal(whole))
        expected = half if told else S @ S
        np.testing.assert_allclose(covariance, expected, atol=1e-12)


def at_distance(distance: float) -> np.ndarray:
    """A descriptor so far from the one at 0."""
    angle = 2.0 * np.arcsin(distance / 2.0)
    return np.array([np.cos(angle), np.sin(angle), 0.0, 0.0], np.float32)


def of_score(score: float) -> np.ndarray:
    """A descriptor of this out-of-distribution score for ``PLACE``."""
    return at_distance(score * np.sqrt(2.0))


# One training frame at 0, and many that resemble none of what is asked.
PLACE = TrainingDistribution(
    np.concatenate([at_distance(0.0)[None], np.eye(4, dtype=np.float32)[[2, 3] * 3]]),
    0.3,
    np.full(6, np.log(0.005)),
)


def test_frames_out_of_distribution_get_motions_but_no_pose_until_it_is_lost() -> None:
    refined_camera = RefinedCamera(CAMERA.K, SE3.identity())
    oracle = Oracle(SE3.identity(), np.zeros((1, 6)), refined_camera, np.full(6, np.log(0.005)))
    run, seen = oracle.run, of_score(0.0)
    oracle.run = lambda image: {**run(image), "descriptor": seen[None]}  # type: ignore[method-assign]
    config = LocalizerConfig()
    front_end = NetworkFrontEnd(oracle, "posenet", 1, PLACE)  # type: ignore[arg-type]
    localizer = Localizer(front_end, open_smoother(config.smoother), config)

    def drive(first: int, count: int) -> list[LocalizerOutput]:
        black = np.zeros((64, 96, 3), np.uint8)
        return [localizer.process(Frame(k * 33_000_000, black, CAMERA)) for k in range(first, first + count)]

    assert all(output.status is Status.TRACKING for output in drive(0, 5))
    seen = of_score(1.1 * MAX_SCORE)
    away = drive(5, 80)
    assert all(output.absolute is None and output.relative is not None for output in away)
    assert "nothing that the network was trained on" in away[0].reason
    assert away[-1].status is Status.LOST and away[-1].estimate is None
    # A doubtful frame is none to start from, and good enough to go on with.
    doubtful = of_score(0.5 * (MAX_START_SCORE + MAX_SCORE))
    seen = doubtful
    assert all(output.absolute is None and output.status is Status.LOST for output in drive(85, 5))
    seen = of_score(0.9 * MAX_START_SCORE)
    assert drive(90, 1)[0].status is Status.TRACKING
    seen = doubtful
    assert all(output.absolute is not None and output.status is Status.TRACKING for output in drive(91, 80))


def test_covariances_are_inflated_away_from_the_training_frames() -> None:
    oracle = Oracle(SE3.identity(), np.zeros((2, 6)), RefinedCamera(CAMERA.K, SE3.identity()), np.zeros(6))
    frames = [Frame(stamp, np.zeros((64, 96, 3), np.uint8), CAMERA) for stamp in (0, 33_000_000)]
    near, far = of_score(0.0), of_score(0.9 * MAX_START_SCORE)
    inflation = PLACE.assess(far).sigma_inflation
    run, found = oracle.run, []
    for descriptor in (near, far):
        oracle.run = lambda image, d=descriptor: {**run(image), "descriptor": d[None]}  # type: ignore[method-assign]
        front_end = NetworkFrontEnd(oracle, "posenet", 2, PLACE)  # type: ignore[arg-type]
        found.append([front_end.observe(frame, None) for frame in frames][1])
    a, b = found
    np.testing.assert_allclose(b.absolute.covariance, a.absolute.covariance * inflation**2, rtol=1e-5)
    np.testing.assert_allclose(
        b.relative.covariance, a.relative.covariance * motion_sigma_inflation(inflation) ** 2, rtol=1e-5
    )


def test_motions_go_on_while_poses_are_too_uncertain_to_be_used(rng: np.random.Generator) -> None:
    oracle = Oracle(
        SE3.identity(), np.zeros((1, 6)), RefinedCamera(CAMERA.K, SE3.identity()), np.full(6, np.log(1e3))
    )
    front_end = NetworkFrontEnd(oracle, "posenet")  # type: ignore[arg-type]
    config = LocalizerConfig()
    localizer = Localizer(front_end, open_smoother(config.smoother), config)
    outputs = [
        localizer.process(Frame(k * 33_000_000, np.zeros((64, 96, 3), np.uint8), CAMERA)) for k in range(5)
    ]
    assert all(output.status is Status.LOST for output in outputs)
    assert [len(output.motions) for output in outputs] == [0, 1, 1, 1, 1]


def test_a_localizer_takes_views_and_samples_from_its_settings(
    tiny_scene: Path, tiny_source: FrameSource
) -> None:
    one, several = (
        open_localizer(tiny_scene, config_from_dict(LocalizerConfig, {"ensemble": {"views": views}}))
        for views in (1, 5)
    )
    frame = tiny_source.read(0)
    a, b = (localizer.process(frame).absolute for localizer in (one, several))
    # A network trained for a moment answers nearly the same to everything.
    assert a.T_map_cam.distance_to(b.T_map_cam) < 1.0 and not np.array_equal(a.covariance, b.covariance)
    with pytest.raises(BackendError, match="has no dropout"):
        open_localizer(tiny_scene, config_from_dict(LocalizerConfig, {"ensemble": {"samples": 8}}))


def test_a_sampled_front_end_is_less_certain_than_the_network_alone(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "networks").mkdir()
    folder = network_folder(tmp_path / "networks", "posenet", 0.5)
    frame = Frame(0, rng.integers(0, 256, (64, 96, 3), np.uint8), CAMERA)
    backend = {"kind": "torch", "threads": 1}
    found = []
    for samples in (0, 50):
        config = config_from_dict(LocalizerConfig, {"backend": backend, "ensemble": {"samples": samples}})
        step = NetworkStep(folder, "posenet", config.backend, samples)
        run = step.run
        # Without a motion network there is no motion; the front end needs one.
        step.run = lambda image, run=run: {
            **run(image),
            "rel": np.zeros((1, 6)),
            "rel_log_sigma": np.zeros((1, 6)),
        }  # type: ignore[method-assign]
        found.append(NetworkFrontEnd(step, "posenet").observe(frame, None).absolute)
    more = found[1].covariance - found[0].covariance
    assert np.linalg.eigvalsh(more).min() > -1e-6 and np.trace(more) > 0.0


def test_a_network_with_states_answers_to_one_view(tmp_path: Path) -> None:
    lsg = {
        "channels": 16,
        "memory": 2,
        "motion_hidden": 16,
        "aligned": False,
        "dropout": 0.1,
        "family": "lsg",
    }
    spec = {**SPEC, **lsg}
    network = build_network(spec).eval()
    card = stream_card("lsg", spec, network, CAMERA, (1.0,) * 4, {})

    class Step:
        pass

    step = Step()
    step.card = card  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"ensemble\.views: lsg answers to one view"):
        NetworkFrontEnd(step, "lsg", 3)  # type: ignore[arg-type]
