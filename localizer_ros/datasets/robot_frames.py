"""What a recording knows of the frames of its robot."""

from __future__ import annotations

from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformTree
from localizer_ros.datasets.source import FrameSource


def transforms_of(source: FrameSource) -> TransformTree | None:
    """The transforms that came with a recording; None for formats that have none."""
    tree = getattr(source, "transforms", None)
    return tree if isinstance(tree, TransformTree) else None


def given_camera(source: FrameSource) -> SE3:
    """``T_given_cam``: the optical frame in the camera frame that a recording names; the two are mostly one."""
    T_given_cam = getattr(source, "T_given_cam", None)
    return T_given_cam if isinstance(T_given_cam, SE3) else SE3.identity()
