"""The tree of a whole recording keeps everything; that of a listener forgets (``test/ros/test_worker.py``)."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.se3 import SE3
from localizer_ros.core.transform_tree import TransformTree

MS = 1_000_000


def at(x: float) -> SE3:
    return SE3(np.eye(3), np.array([x, 0.0, 0.0]))


def test_without_a_bound_all_moving_edges_are_kept_in_whatever_order_they_come() -> None:
    tree = TransformTree(history_s=None)
    order = np.random.default_rng(0).permutation(100)
    for index in order:
        tree.set("odom", "base", at(float(index)), int(index) * 1000 * MS)
    for index in range(100):
        assert tree.lookup("odom", "base", index * 1000 * MS).t[0] == index


def test_frames_are_all_that_an_edge_joins() -> None:
    tree = TransformTree()
    assert tree.frames == set()
    tree.set("base", "camera", at(0.0), None)
    tree.set("odom", "base", at(0.0), 5)
    assert tree.frames == {"odom", "base", "camera"}


def test_fixed_edges_are_found_or_unknown() -> None:
    tree = TransformTree()
    tree.set("base", "camera", at(0.5), None)
    tree.set("odom", "base", at(1.0), 5)
    found = tree.find_fixed("camera", "base")
    assert found is not None and found.t[0] == -0.5
    assert tree.find_fixed("odom", "camera") is None
    assert tree.find_fixed("base", "laser") is None
