"""Which way the axes of a camera frame point, by the conventions that are in use."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from localizer_ros.core.arrays import Array
from localizer_ros.core.se3 import SE3

Convention = Annotated[
    Literal["optical", "forward", "opengl"],
    Meta(description="Axes of the frame that images name; forward is x ahead and z up"),
]

# Axes of the optical frame (x right, y down, z forward), in columns, in a frame of each convention: the optical one
# itself, x forward and z up as links of robots and simulators have it, and y up and z back as graphics have it.
CONVENTIONS: dict[str, Array] = {
    "optical": np.eye(3),
    "forward": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "opengl": np.diag([1.0, -1.0, -1.0]),
}


def optical_in(convention: str) -> SE3:
    """``T_given_optical``: the optical frame in a camera frame of a convention, a key of ``CONVENTIONS``."""
    return SE3(CONVENTIONS[convention], np.zeros(3))
