"""Posed images to training sequences: poses that fit, honest validation parts, the same on every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from training_images import NOTHING, SMALL, some_data

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.preprocess import network_camera
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import SourceError
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.training.data import ViewSequences, hold_out, load_posed_images, motion_vector


@pytest.mark.parametrize("length", [2, 5])
def test_training_sequences_stay_within_one_recorded_sequence_and_keep_their_poses(
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


def test_a_part_with_holes_is_several_sequences(rng: np.random.Generator) -> None:
    part = some_data(30, rng).subset(np.array([0, 1, 2, 6, 7, 9, 10, 11]))
    # 2 and 6 are not neighbours, 7 and 9 neither, and 9 and 10 belong to two recordings.
    np.testing.assert_array_equal(part.sequences, [0, 0, 0, 1, 1, 2, 3, 3])


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
