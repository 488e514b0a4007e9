"""A smaller view and low light: the same for a whole training sequence, and true to the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replace_settings
from scipy.spatial.transform import Rotation
from training_images import NOTHING, SMALL, some_data

from localizer_ros.core.se3 import SE3
from localizer_ros.training.augmentation import LowLight, in_low_light
from localizer_ros.training.data import ViewSequences
from localizer_ros.training.virtual_views import SceneDepth


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
def test_lamps_stay_in_the_world_and_the_headlight_before_the_camera(headlight: bool) -> None:
    towards = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    lamps = np.array([[0.0, 0.0, 1.0], towards])
    colours = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])[:: 1 if headlight else -1]
    low_light = LowLight(np.full(3, 0.02), lamps, np.array([40.0, 40.0]), colours, 0.1, 0.0)
    grey = np.full((48, 64, 3), 128, np.uint8)
    for w in ([0.0, 0.0, 0.0], [0.2, 0.1, 0.0], [-0.1, -0.2, 0.3]):
        R = Rotation.from_rotvec(w).as_matrix()
        seen = in_low_light(grey, SMALL, R, low_light, np.zeros((48, 64, 3), np.float32)).sum(2).astype(float)
        ys, xs = np.mgrid[0:48, 0:64]
        bright = seen > 0.97 * seen.max()
        ray = np.linalg.inv(SMALL.K) @ [xs[bright].mean(), ys[bright].mean(), 1.0]
        expected = lamps[0] if headlight else R.T @ lamps[1]
        angle = np.degrees(np.arccos(ray @ expected / np.linalg.norm(ray)))
        assert angle < 2.0 and seen.min() < 0.5 * seen.max()


def test_low_light_is_dark_and_noisy_and_the_same_throughout_a_training_sequence(
    rng: np.random.Generator,
) -> None:
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
