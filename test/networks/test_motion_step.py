"""A stream of steps of the motion network gives what the whole sequence gives."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from localizer_ros.networks.motion import MotionHead
from localizer_ros.networks.motion_step import MotionStep


def test_a_stream_of_steps_equals_the_batch() -> None:
    torch.manual_seed(1)
    step = MotionStep(MotionHead(8, 16), (64, 96)).eval()
    # One texture that drifts by a pixel a frame.
    wall = F.interpolate(torch.randn(1, 3, 16, 26), (64, 104), mode="bicubic")
    images = torch.cat([wall[..., k : k + 96] for k in range(4)])
    inverse_depth = torch.full((4, 8, 12), 0.5)
    with torch.no_grad():
        texture = step.motion.features(images)
        rel = step.motion(
            torch.cat([torch.zeros_like(texture[:1]), texture[:-1]]), texture, inverse_depth
        ).rel_B6
        state = torch.zeros(1, *step.state_shapes[0])
        for index in range(4):
            output = step(images[index : index + 1], inverse_depth[index : index + 1], state)
            state = output.texture_B1hw
            if index > 0:
                torch.testing.assert_close(output.rel_B6[0], rel[index], atol=1e-4, rtol=1e-3)
