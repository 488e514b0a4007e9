"""What all networks that are trained for a place have in common."""

from __future__ import annotations

from torch import nn

from localizer_ros.networks.encoders.layers import Encoder
from localizer_ros.networks.motion import MotionHead


class SceneNetwork(nn.Module):
    """Base of the networks of a place: ``forward(image_B3HW, *states)`` answers with a NamedTuple.

    Attributes:
        encoder: image to features.
        motion: its depth is answered, and motion is solved for by it; None where the network measures motion itself.
        state_shapes: of the states, without batch; they are the last inputs and the last outputs.
    """

    encoder: Encoder
    motion: MotionHead | None
    state_shapes: tuple[tuple[int, ...], ...] = ()
