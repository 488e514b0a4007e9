"""A network on a stream of images: the same on every back end, states kept, warm from the start."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.model_card import (
    ModelCard,
)
from localizer_ros.inference.network_step import NetworkStep

pytestmark = pytest.mark.slow


def images(card: ModelCard, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = next(spec.shape for spec in card.inputs if spec.name == "image")
    return rng.normal(0, 1, (count, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_back_ends_agree_and_keep_states(tiny_scene: Path, rng: np.random.Generator, kind: str) -> None:
    folder = tiny_scene / "networks"
    reference = NetworkStep(folder, "posenet", BackendConfig(kind="torch"))
    step = NetworkStep(folder, "posenet", BackendConfig(kind=kind, threads=1))
    shape = images(reference.card, 1, rng).shape[1:]
    blurred = cv2.GaussianBlur(rng.normal(0, 1, (*shape[1:], 3)), (0, 0), 2.0) * 8.0
    still = blurred.transpose(2, 0, 1).astype(np.float32)
    batch = [np.roll(still, moved_px, 2)[None] for moved_px in (0, 1, 3)]
    moved = None
    for index, image in enumerate(batch):
        expected, answer = (s.run(image) for s in (reference, step))
        for name in expected:
            # There is no motion to the first frame; what is given in its place is of no meaning.
            if index > 0 or not name.startswith("rel"):
                np.testing.assert_allclose(answer[name], expected[name], atol=2e-4, rtol=1e-3)
        moved = answer["rel"] if index == 1 else moved
    # The same step again after a reset gives the same motion; without it, another.
    assert moved is not None and not np.allclose(step.run(batch[1])["rel"], moved, atol=1e-6)
    step.reset()
    step.run(batch[0])
    np.testing.assert_allclose(step.run(batch[1])["rel"], moved, atol=1e-6)
    step.close()


def test_warming_up_leaves_no_trace(tiny_scene: Path, tiny_source: FrameSource) -> None:
    networks, config = tiny_scene / "networks", BackendConfig(kind="openvino", threads=1)
    cold, warm = (NetworkStep(networks, "posenet", config) for _ in range(2))
    warm.warm_up()
    image = np.random.default_rng(0).normal(size=warm.card.inputs[0].shape).astype(np.float32)
    for _ in range(2):
        expected, outputs = cold.run(image), warm.run(image)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name], value)
