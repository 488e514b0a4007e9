"""Stored views: what the encoder gives for the rendered view, one light and turn for a sequence, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localizer_ros.core.config.training import AugmentationConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera
from localizer_ros.networks.encoders.build import build_encoder
from localizer_ros.networks.encoders.layers import Features
from localizer_ros.training.data import PosedImages, ViewSequences
from localizer_ros.training.module import Normalize
from localizer_ros.training.stored_views import StoredSequences, StoredViews, store_views
from localizer_ros.training.virtual_views import SceneDepth

CAMERA = Camera.pinhole(96, 64, 80.0, 80.0, 47.5, 31.5)
# Two recorded sequences; the first is encoded in two pieces.
SEQUENCES = np.repeat([0, 1], [40, 6])
NORMALIZE = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Means(nn.Module):
    """An encoder whose features are mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Features:
        return Features(F.avg_pool2d(x, 8), F.avg_pool2d(x, 32))


def frames_of(
    rng: np.random.Generator, augmentation: AugmentationConfig, grey: bool = False
) -> ViewSequences:
    count = len(SEQUENCES)
    images = np.full((count, 64, 96, 3), 120, np.uint8)
    if not grey:
        images = rng.integers(0, 256, images.shape, np.uint8)
    data = PosedImages(
        images,
        tuple(SE3.exp(rng.normal(0, 0.5, 6)) for _ in range(count)),
        SEQUENCES,
        tuple(str(i) for i in range(count)),
        CAMERA,
        SceneDepth(np.full((count, 16, 24), 0.5, np.float16), CAMERA.K, SE3.identity(), 2.0),
    )
    return ViewSequences(data, 3, 2, augmentation, seed=4)


def stored_of(frames: ViewSequences, encoder: nn.Module, variants: int) -> StoredViews:
    return store_views(encoder, NORMALIZE, frames, variants)


def test_features_and_poses_are_those_of_the_rendered_views(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("mobilenet_v3_small")
    frames = frames_of(rng, AugmentationConfig(low_light=0.5))
    # Features of ordinary size: norms that know the images.
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    encoder.train()(NORMALIZE(torch.from_numpy(frames.data.images[:16]).permute(0, 3, 1, 2)))
    stored = stored_of(frames, encoder, 2)
    for variant in range(2):
        for start, end in ((0, 40), (40, 46)):
            views = list(frames.render(range(start, end), np.random.default_rng((4, variant, start))))
            images = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2)
            with torch.no_grad():
                expected = encoder.eval()(NORMALIZE(images))
            for found, true in ((stored.fine, expected.fine), (stored.coarse, expected.coarse)):
                error = (found[variant, start:end].float() - true).norm() / true.norm()
                # bfloat16 has 8 bits, and errors add up over the layers; views of other rows differ by more than 0.5.
                assert error < 0.05
            for row, view in enumerate(views, start):
                np.testing.assert_allclose(stored.t[variant, row], view.T_map_cam.t, atol=1e-5)
                np.testing.assert_allclose(
                    stored.q[variant, row], view.T_map_cam.quaternion_xyzw(), atol=1e-5
                )
                np.testing.assert_allclose(stored.inverse_depth[variant, row], view.inverse_depth, rtol=1e-3)


def test_a_sequence_has_one_light_and_others_have_others(rng: np.random.Generator) -> None:
    light_only = AugmentationConfig(blur_px=0.0, noise=0.0, virtual_rotation_deg=0.0, virtual_move=0.0)
    stored = stored_of(frames_of(rng, light_only, grey=True), Means(), 3)
    brightness = stored.coarse.float().mean((2, 3, 4)).numpy()
    lights = [brightness[v, part] for v in range(3) for part in (slice(0, 40), slice(40, 46))]
    # Loss of colour changes a grey that the light has tinted by a little.
    assert max(np.ptp(light) for light in lights) < 0.15
    assert np.ptp([light.mean() for light in lights]) > 0.6


def test_a_sequence_is_turned_and_moved_as_a_whole(rng: np.random.Generator) -> None:
    frames = frames_of(rng, AugmentationConfig(), grey=True)
    stored = stored_of(frames, Means(), 2)
    moves = np.array(
        [
            [
                (T.inverse() @ SE3.from_quaternion(t, q)).log()
                for T, t, q in zip(frames.data.poses, ts, qs, strict=True)
            ]
            for ts, qs in zip(stored.t.numpy(), stored.q.numpy(), strict=True)
        ]
    )
    within = np.mean([moves[:, :40].std(1).mean(), moves[:, 40:].std(1).mean()])
    assert 0.01 < within < 0.3 * moves.std((0, 1)).mean()


def test_the_same_seed_stores_the_same_views(rng: np.random.Generator) -> None:
    frames = frames_of(rng, AugmentationConfig())
    a, b = (stored_of(frames, Means(), 1) for _ in range(2))
    for name in ("coarse", "fine", "inverse_depth", "t", "q"):
        assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("length", [1, 3])
def test_a_training_sequence_is_of_one_recorded_sequence_and_one_variant(
    rng: np.random.Generator, length: int
) -> None:
    stored = stored_of(frames_of(rng, AugmentationConfig()), Means(), 3)
    where = {q.numpy().tobytes(): (v, n) for v, views in enumerate(stored.q) for n, q in enumerate(views)}
    sequences = StoredSequences(stored, length, 2, seed=1)
    variants = set()
    for number in range(2 * len(sequences)):
        item = sequences[number]
        found = [where[q.numpy().tobytes()] for q in item["q"]]
        assert found[-1][1] == number % len(sequences)
        assert len({v for v, _ in found}) == 1 and len({SEQUENCES[n] for _, n in found}) == 1
        assert len({n for _, n in found}) >= min(length, 2)  # the end of a short sequence stands still
        variants.add(found[0][0])
        for place, coarse in zip(found, item["coarse"], strict=True):
            assert torch.equal(coarse, stored.coarse[place])
        assert torch.equal(item["fine"], stored.fine[found[-1]])
        for key, value in sequences[number].items():
            assert torch.equal(value, item[key])
    assert variants == {0, 1, 2}
