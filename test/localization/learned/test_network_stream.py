"""A network front end on a stream: bad outputs, and images of another size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from localizer_ros.core.config.runtime import BackendConfig
from localizer_ros.core.types import Frame
from localizer_ros.datasets.source import FrameSource
from localizer_ros.inference.network_step import NetworkStep
from localizer_ros.localization.learned.front_end import NetworkFrontEnd

pytestmark = pytest.mark.slow


def test_an_output_that_is_not_finite_gives_no_pose_and_the_stream_starts_over(
    tiny_scene: Path, tiny_source: FrameSource
) -> None:
    backend = NetworkStep(tiny_scene / "networks", "posenet", BackendConfig(kind="openvino"))

    class Broken:
        """The real back end, with one bad answer."""

        name, card, bad, resets = backend.name, backend.card, False, 0

        def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
            outputs = backend.run(image)
            return {k: v * np.nan if k == "t" else v for k, v in outputs.items()} if self.bad else outputs

        def reset(self) -> None:
            self.resets += 1
            backend.reset()

        def close(self) -> None:
            backend.close()

    broken = Broken()
    front_end = NetworkFrontEnd(broken, "posenet")
    assert front_end.observe(tiny_source.read(0), None).absolute is not None
    broken.bad = True
    observation = front_end.observe(tiny_source.read(1), None)
    assert observation.absolute is None and observation.relative is None
    assert "not finite" in observation.reason and broken.resets == 1
    broken.bad = False
    after = front_end.observe(tiny_source.read(2), None)
    assert after.absolute is not None and after.relative is None  # no motion over the hole


def test_images_of_another_size_of_the_same_view_give_nearly_the_same_pose(
    tiny_scene: Path, tiny_source: FrameSource
) -> None:
    step = NetworkStep(tiny_scene / "networks", "posenet", BackendConfig(kind="openvino"))
    front_end = NetworkFrontEnd(step, "posenet")
    frame = tiny_source.read(0)
    larger = Frame(
        frame.stamp_ns + 1,
        np.asarray(cv2.resize(frame.image, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8),
        frame.camera.scaled(320, 240),
    )
    a, b = (front_end.observe(f, None).absolute for f in (frame, larger))
    assert a.T_map_cam.distance_to(b.T_map_cam) < 0.2
