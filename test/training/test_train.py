"""Training: exact geometry of augmentation, honest validation parts, determinism, resume, and learning at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK
from msgspec.structs import replace as replace_settings
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from localizer_ros.cli.main import app
from localizer_ros.cli.options import minutes as read_minutes
from localizer_ros.core.config.mapping import MapConfig
from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.config.training import AugmentationConfig, TrainingConfig
from localizer_ros.core.preprocess import network_camera
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, ConfigError, NumericalError, SceneError, SourceError
from localizer_ros.datasets.derived import FirstFrames
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.mapping.build import build_scene
from localizer_ros.networks.build import build_network
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.networks.poses import Pose
from localizer_ros.scene.bundle import Scene
from localizer_ros.training.data import PosedImages, ViewSequences, hold_out, load_posed_images, motion_vector
from localizer_ros.training.low_light import Night, at_night
from localizer_ros.training.module import added_motions
from localizer_ros.training.network_setup import make_network
from localizer_ros.training.objectives import GeometricObjective, Observed
from localizer_ros.training.train import train
from localizer_ros.training.virtual_views import SceneDepth, VirtualViews
from localizer_ros.training.weights import load_weights, start_from

NOTHING = AugmentationConfig(colour=0.0, blur_px=0.0, noise=0.0, virtual_rotation_deg=0.0)
SMALL = Camera.pinhole(64, 48, 50.0, 50.0, 31.5, 23.5)


def some_data(count: int, rng: np.random.Generator, per_sequence: int = 10) -> PosedImages:
    return PosedImages(
        rng.integers(0, 256, (count, 48, 64, 3), np.uint8),
        tuple(SE3.exp(rng.normal(0, 0.5, 6)) for _ in range(count)),
        np.arange(count) // per_sequence,
        tuple(str(i) for i in range(count)),
        SMALL,
    )


@pytest.mark.parametrize("length", [2, 5])
def test_sequences_never_bridge_two_drives_and_carry_their_poses(
    rng: np.random.Generator, length: int
) -> None:
    data = some_data(30, rng)
    sequences = ViewSequences(data, length, 2, NOTHING, seed=1)
    where = {data.images[i].tobytes(): i for i in range(len(data))}
    for index in range(len(sequences)):
        item = sequences[index]
        found = [where[image.numpy().transpose(1, 2, 0).tobytes()] for image in item["images"]]
        assert len(found) == length and found[-1] == index and found[0] != index
        assert set(data.sequences[found]) == {data.sequences[index]}
        steps = np.diff(found)
        assert np.all(np.abs(steps) <= 2) and (np.all(steps >= 0) or np.all(steps <= 0))
        expected = motion_vector(data.poses[found[-2]], data.poses[index])
        np.testing.assert_allclose(item["rel"].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(item["t"].numpy(), [data.poses[i].t for i in found], atol=1e-5)


def test_the_same_seed_and_number_give_the_same_sequence(rng: np.random.Generator) -> None:
    data = some_data(12, rng)
    a, b = (ViewSequences(data, 3, 3, AugmentationConfig(), seed=7) for _ in range(2))
    for key, value in a[5].items():
        assert torch.equal(value, b[5][key])
    later = b[5 + len(b)]
    assert not torch.equal(a[5]["images"], later["images"])
    assert torch.equal(a[5 + len(a)]["images"], later["images"])


def test_a_virtual_rotation_shows_what_a_turned_camera_sees() -> None:
    """The augmented image and pose must agree: compared with the simulator's own render from the turned camera."""
    source = SimulatedSource(
        config_from_dict(
            WorldConfig,
            {"duration_s": 1.0, "fps": 2.0, "noise": 0.0, "exposure_ms": 0.0, "moving_objects": 0},
        )
    )
    camera = network_camera(source.camera, 256, 192)
    data = load_posed_images(source, camera)
    pairs = ViewSequences(
        data, 2, 1, AugmentationConfig(colour=0.0, blur_px=0.0, noise=0.0, virtual_rotation_deg=15.0), seed=3
    )
    item = pairs[0]
    T_map_new = SE3.from_quaternion(item["t"][-1].numpy(), item["q"][-1].numpy())
    R_cam_new = data.poses[0].R.T @ T_map_new.R
    assert 3.0 < np.degrees(Rotation.from_matrix(R_cam_new).magnitude()) < 30.0
    np.testing.assert_allclose(T_map_new.t, data.poses[0].t, atol=1e-5)
    # A direction seen at pixel x of the old view is seen at K R_new_cam K^-1 x in the new one, with the same colour.
    new = item["images"][-1].numpy().transpose(1, 2, 0).astype(float)
    old = data.images[0].astype(float)
    ys, xs = np.mgrid[20:172:9, 20:236:9]
    rays = np.linalg.inv(camera.K) @ np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    projected = camera.K @ R_cam_new.T @ rays
    u, v = projected[:2] / projected[2]
    inside = (u > 2) & (u < 253) & (v > 2) & (v < 189) & (projected[2] > 0)
    assert inside.sum() > 50
    seen = new[np.round(v[inside]).astype(int), np.round(u[inside]).astype(int)]
    difference = np.abs(seen - old[ys.ravel()[inside], xs.ravel()[inside]]).mean(1)
    assert np.median(difference) < 12.0


def test_a_crop_blackens_what_a_smaller_view_lacks_and_changes_nothing_else(rng: np.random.Generator) -> None:
    data = replace(
        some_data(12, rng),
        depth=SceneDepth(np.full((12, 12, 16), 0.5, np.float16), SMALL.K, SE3.identity(), 2.0),
    )
    whole, cropped = (
        ViewSequences(data, 3, 3, replace_settings(NOTHING, crop=crop), seed=2) for crop in (0.0, 0.6)
    )
    kept = []
    for index in range(len(data)):
        a, b = whole[index], cropped[index]
        for key in ("t", "q", "rel"):
            assert torch.equal(a[key], b[key])
        seen = b["images"].any(1).any(0).numpy()
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        inside = np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # One window for all frames: they were taken by one camera.
        assert (
            torch.equal(a["images"][inside], b["images"][inside])
            and not b["images"].sum() > a["images"].sum()
        )
        outside = np.ones((48, 64), bool)
        outside[inside] = False
        assert not b["images"].numpy()[..., outside].any()
        assert not b["inverse_depth"].numpy()[outside.reshape(6, 8, 8, 8).all((1, 3))].any()
        kept.append((len(rows) / 48, len(columns) / 64))
    assert 0.35 < np.min(kept) < 0.7 and np.max(kept) > 0.9


@pytest.mark.parametrize("headlight", [False, True])
def test_at_night_lamps_stay_in_the_world_and_the_headlight_before_the_camera(headlight: bool) -> None:
    towards = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    lamps = np.array([[0.0, 0.0, 1.0], towards])
    colours = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])[:: 1 if headlight else -1]
    night = Night(np.full(3, 0.02), lamps, np.array([40.0, 40.0]), colours, 0.1, 0.0)
    grey = np.full((48, 64, 3), 128, np.uint8)
    for w in ([0.0, 0.0, 0.0], [0.2, 0.1, 0.0], [-0.1, -0.2, 0.3]):
        R = Rotation.from_rotvec(w).as_matrix()
        seen = at_night(grey, SMALL, R, night, np.zeros((48, 64, 3), np.float32)).sum(2).astype(float)
        ys, xs = np.mgrid[0:48, 0:64]
        bright = seen > 0.97 * seen.max()
        ray = np.linalg.inv(SMALL.K) @ [xs[bright].mean(), ys[bright].mean(), 1.0]
        expected = lamps[0] if headlight else R.T @ lamps[1]
        angle = np.degrees(np.arccos(ray @ expected / np.linalg.norm(ray)))
        assert angle < 2.0 and seen.min() < 0.5 * seen.max()


def test_nights_are_dark_noisy_and_differ_while_a_sequence_has_one(rng: np.random.Generator) -> None:
    smooth = np.tile(np.linspace(60, 200, 64, dtype=np.uint8)[None, :, None], (12, 48, 1, 3))
    data = replace(some_data(12, rng), images=smooth)
    day, dark = (
        ViewSequences(data, 2, 1, replace_settings(NOTHING, low_light=share), seed=2) for share in (0.0, 1.0)
    )
    levels, noise = [], []
    for index in range(12):
        assert torch.equal(day[index]["q"], dark[index]["q"])
        image = dark[index]["images"].float()
        levels.append(float(image.mean() / day[index]["images"].float().mean()))
        noise.append(float((image[..., 1:] - image[..., :-1]).std()))
    assert max(levels) < 0.7 and np.std(levels) > 0.05
    assert min(noise) > 1.0
    some = ViewSequences(data, 2, 1, replace_settings(NOTHING, low_light=0.5), seed=2)
    assert 2 <= sum(torch.equal(some[i]["images"], day[i]["images"]) for i in range(12)) <= 10


def test_a_moved_view_shows_what_a_moved_camera_sees() -> None:
    """Frames of a drive, moved to the pose of a later one by the simulator's depth, against what was seen there."""
    source = SimulatedSource(
        config_from_dict(
            WorldConfig,
            {
                "duration_s": 8.0,
                "fps": 2.0,
                "noise": 0.0,
                "exposure_ms": 0.0,
                "moving_objects": 0,
                "width_px": 256,
            },
        )
    )
    data = load_posed_images(source, source.camera)
    rendered = [source.render(index)[1] for index in range(len(data))]
    depth = SceneDepth(
        np.stack([q[::4, ::4] for q in rendered]).astype(np.float16), source.camera.K, SE3.identity(), 3.0
    )
    views = VirtualViews(data.images, data.poses, source.camera, depth)
    steps = [(i, data.poses[i].inverse() @ data.poses[i + 1]) for i in range(len(data) - 1)]
    moving = [(i, T) for i, T in steps if 0.15 < np.linalg.norm(T.t) < 0.5]
    assert len(moving) >= 5
    ratios, depth_errors = [], []
    for before, T_prev_cur in moving:
        after = before + 1
        moved, T_map_new, inverse_depth = views.view(before, T_prev_cur.R, T_prev_cur.t)
        turned, _, _ = views.view(before, T_prev_cur.R, np.zeros(3))
        assert T_map_new.distance_to(data.poses[after]) < 1e-9
        # Depth of the new view, against what the simulator renders there.
        known = inverse_depth > 0
        ratio = (inverse_depth / rendered[after][4::8, 4::8])[known]
        depth_errors.append(float(np.median(np.abs(np.log(ratio)))))
        seen = data.images[after].astype(int)
        inside = (moved.sum(2) > 0) & (turned.sum(2) > 0)
        error_moved, error_turned = (np.abs(v - seen)[inside].mean() for v in (moved, turned))
        ratios.append(error_moved / error_turned)
    # Hard edges of near boxes are not where a coarse depth puts them, so not every pair gains as much.
    assert np.median(ratios) < 0.7
    assert np.median(depth_errors) < 0.02


def test_a_part_with_holes_is_several_drives(rng: np.random.Generator) -> None:
    part = some_data(30, rng).subset(np.array([0, 1, 2, 6, 7, 9, 10, 11]))
    # 2 and 6 are not neighbours, 7 and 9 neither, and 9 and 10 belong to two recordings.
    np.testing.assert_array_equal(part.sequences, [0, 0, 0, 1, 1, 2, 3, 3])


def test_added_motions_of_a_perfect_head_have_no_error_and_their_variances_add_up(
    rng: np.random.Generator,
) -> None:
    data = some_data(24, rng, per_sequence=12)
    rel = np.zeros((24, 6))
    for row in range(1, 24):
        rel[row] = motion_vector(data.poses[row - 1], data.poses[row])
    outputs = {"rel": rel, "rel_log_sigma": np.full((24, 6), np.log(0.1))}
    errors, variances = added_motions(outputs, data, 5)
    assert len(errors) >= 6
    np.testing.assert_allclose(errors, 0.0, atol=1e-9)
    np.testing.assert_allclose(variances, 5 * 0.01)


def test_held_out_frames_are_contiguous_and_disjoint() -> None:
    kept, held = hold_out(200, 0.1)
    assert len(held) == 20 and len(kept) == 180
    assert not set(kept) & set(held)
    assert np.sum(np.diff(held) > 1) == 3  # four blocks
    assert len(hold_out(200, 0.0)[1]) == 0


def test_frames_without_a_pose_are_left_out_and_too_few_are_an_error(tiny_source: FrameSource) -> None:
    class Blind:
        def __init__(self, known: int) -> None:
            self.path, self.camera = tiny_source.path, tiny_source.camera
            self.records = [
                type(r)(r.name, r.sequence, r.stamp_ns, r.T_map_cam if i < known else None)
                for i, r in enumerate(tiny_source.records)
            ]

        def read(self, index: int) -> object:
            return tiny_source.read(index)

    assert len(load_posed_images(Blind(5), SMALL)) == 5
    with pytest.raises(SourceError, match="1 frames have a pose"):
        load_posed_images(Blind(1), SMALL)


class Line(torch.nn.Module):
    """Fits the mean colour of an image to its position: small, real, and quick."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(3, 8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = batch["images"][:, -1].float().mean((2, 3)) / 255.0
        return {"total": (self.head(torch.relu(self.encoder(x))) - batch["t"][:, -1]).square().mean()}


def run_line(
    work: Path, epochs: int, data: PosedImages, resume: bool = False, **settings: object
) -> tuple[Line, object]:
    work.mkdir(exist_ok=True)
    module = Line()
    config = config_from_dict(
        TrainingConfig,
        {"epochs": epochs, "batch_size": 4, "validate_every": 1, "precision": "fp32", **settings},
    )
    result = train(module, module.encoder, ViewSequences(data, 2, 2, NOTHING, 0), config, work, None, resume)
    return module, result


def test_training_leaves_no_signal_handler_behind(tmp_path: Path, rng: np.random.Generator) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    run_line(tmp_path, 1, some_data(12, rng))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_training_is_deterministic_by_seed(tmp_path: Path, rng: np.random.Generator) -> None:
    data = some_data(12, rng)
    a, b = (run_line(tmp_path / name, 3, data)[0] for name in "ab")
    c = run_line(tmp_path / "c", 3, data, seed=5)[0]
    assert torch.equal(a.head.weight, b.head.weight)
    assert not torch.equal(a.head.weight, c.head.weight)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path, rng: np.random.Generator) -> None:
    data = some_data(12, rng)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 8:  # in the third of four epochs of three steps
            raise Killed

    module = Line()
    config = config_from_dict(
        TrainingConfig, {"epochs": 4, "batch_size": 4, "validate_every": 1, "precision": "fp32"}
    )
    with pytest.raises(Killed):
        train(
            module,
            module.encoder,
            ViewSequences(data, 2, 2, NOTHING, 0),
            config,
            tmp_path,
            None,
            progress=kill,
        )
    resumed, result = run_line(tmp_path, 4, data, resume=True)
    assert result.epochs == 4
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert (tmp_path / "training.csv").read_text().count("\n") == 5
    uninterrupted, _ = run_line(tmp_path / "whole", 4, data)
    for a, b in zip(resumed.parameters(), uninterrupted.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_time_budget_and_patience_end_it_with_the_best_weights(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = some_data(12, rng)
    _, result = run_line(tmp_path, 100_000, data, time_budget_min=0.02)
    assert result.stopped == "time budget" and result.epochs < 100_000
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    module = Line()
    config = config_from_dict(
        TrainingConfig,
        {"epochs": 50, "batch_size": 4, "validate_every": 1, "precision": "fp32", "patience": 3},
    )
    kept = []

    def validate(average: torch.nn.Module) -> dict[str, float]:
        kept.append(average.head.weight.detach().clone())
        return {"score": next(scores)}

    work = tmp_path / "patience"
    work.mkdir()
    result = train(module, module.encoder, ViewSequences(data, 2, 2, NOTHING, 0), config, work, validate)
    assert result.stopped == "patience" and result.best_score == 1.0
    assert torch.equal(module.head.weight, kept[1])
    diverged = tmp_path / "diverged"
    diverged.mkdir()
    with pytest.raises(NumericalError, match="lower the learning rate"):
        train(
            module,
            module.encoder,
            ViewSequences(data, 2, 2, NOTHING, 0),
            config,
            diverged,
            lambda average: {"score": float("nan")},
        )


@pytest.mark.parametrize(
    ("text", "minutes"), [("10min", 10.0), ("90s", 1.5), ("0.5h", 30.0), (" 2 h ", 120.0), ("7", 7.0)]
)
def test_a_time_budget_is_read(text: str, minutes: float) -> None:
    assert read_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "ten", "10 m", "-5min", "0s", "nan", "infh", "1e3", "5min5s"])
def test_nonsense_is_no_time_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="--time-budget: expected"):
        read_minutes(text)


def test_a_time_budget_without_training_is_an_error(tmp_path: Path) -> None:
    world = tmp_path / "world.yaml"
    world.write_text("duration_s: 1.0")
    result = CliRunner().invoke(
        app, ["map", str(world), "--out", str(tmp_path / "scene"), "--time-budget", "5min"]
    )
    assert result.exit_code == 1 and "trains no network; leave --time-budget out" in result.stderr


def test_what_is_fine_tuned_is_kept_where_nothing_is_better(tmp_path: Path, rng: np.random.Generator) -> None:
    data = some_data(12, rng)
    for scores, kept in (([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2)):
        module, left = Line(), iter(scores)
        seen: list[torch.Tensor] = []

        def validate(average: torch.nn.Module) -> dict[str, float]:
            seen.append(average.head.weight.detach().clone())  # noqa: B023
            return {"score": next(left)}  # noqa: B023

        config = config_from_dict(
            TrainingConfig,
            {"epochs": 2, "batch_size": 4, "validate_every": 1, "precision": "fp32", "fine_tune": True},
        )
        result = train(
            module, module.encoder, ViewSequences(data, 2, 2, NOTHING, 0), config, tmp_path, validate
        )
        assert [row["epoch"] for row in result.history] == [0, 1, 2]
        assert torch.equal(seen[0], Line().head.weight)
        assert torch.equal(module.head.weight, seen[kept]) and result.best_score == 1.0


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"fine_tune": True}}, "needs the network to go on from: --weights"),
        ({"posenet": {"loss": "geometric"}}, "geometric leads nowhere from far off"),
    ],
)
def test_fine_tuning_needs_something_to_go_on_from(
    settings: dict[str, object], message: str, tiny_source: FrameSource, tmp_path: Path
) -> None:
    config = config_from_dict(MapConfig, {"method": "posenet", **settings})
    with pytest.raises(ConfigError, match=message):
        build_scene(tiny_source, "all", config, tmp_path / "scene")
    assert not list(tmp_path.iterdir())


def test_the_geometric_loss_is_the_distance_in_the_image_and_leads_to_the_truth(
    rng: np.random.Generator,
) -> None:
    mounting = SE3.exp([0.1, -0.2, 0.1, 0.05, 0.02, 0.0])
    data = replace(
        some_data(12, rng), depth=SceneDepth(np.full((12, 12, 16), 0.5, np.float16), SMALL.K, mounting, 2.0)
    )
    config = config_from_dict(
        MapConfig,
        {
            "method": "posenet",
            "network": {"encoder": "mobilenet_v3_small", "width_px": 64, "height_px": 64, "hidden": 16},
            "posenet": {"loss": "geometric"},
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
    seen = ((T_off @ mounting).inverse() @ (T @ mounting) @ points) @ SMALL.K.T
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


def test_a_scene_is_whole_or_not_there(tiny_source: FrameSource, tmp_path: Path) -> None:
    out = tmp_path / "scene"

    def fail(stage: str, done: int, total: int) -> None:
        if stage == "training":
            raise KeyboardInterrupt

    config = config_from_dict(
        MapConfig,
        {
            "method": "posenet",
            "network": {"encoder": "mobilenet_v3_small", "width_px": 96, "height_px": 64, "hidden": 16},
            "training": {"epochs": 1, "batch_size": 8, "augmentation": {"virtual_move": 0.0}},
        },
    )
    with pytest.raises(KeyboardInterrupt):
        build_scene(tiny_source, "all", config, out, progress=fail)
    assert not out.exists()
    other = config_from_dict(MapConfig, {"training": {"epochs": 2}})
    with pytest.raises(ConfigError, match="other settings"):
        build_scene(tiny_source, "all", other, out, resume=True)
    fewer = FirstFrames(tiny_source, len(tiny_source.records) - 1)
    with pytest.raises(ConfigError, match="other frames"):
        build_scene(fewer, "all", config, out, resume=True)
    facts = build_scene(tiny_source, "all", config, out, resume=True)
    assert facts["accuracy"]["part"] == "validation"
    assert Scene.load(out).method == "posenet"
    assert [p.name for p in tmp_path.iterdir()] == ["scene"]
    with pytest.raises(SceneError, match="exists already"):
        build_scene(tiny_source, "all", config, out)


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


def test_training_after_images_were_handled_on_several_cores(tmp_path: Path) -> None:
    """The process that renders is forked; threads that OpenCV had before must not keep it waiting for ever."""
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
import cv2, numpy as np
from pathlib import Path
from training.test_train import run_line, some_data
cv2.setNumThreads(4)
cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (3000, 3000), interpolation=cv2.INTER_CUBIC)
run_line(Path({str(tmp_path)!r}), 1, some_data(12, np.random.default_rng(0)))
assert cv2.getNumThreads() == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
