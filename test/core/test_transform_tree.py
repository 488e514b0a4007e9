"""Transforms between named frames over time: of a listener, which forgets, and of a whole recording."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localizer_ros.core.se3 import SE3, interpolate
from localizer_ros.core.transform_tree import TransformError, TransformTree

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


def random_pose(rng: np.random.Generator) -> SE3:
    return SE3.exp(np.concatenate([rng.normal(0.0, 1.0, 3), rng.normal(0.0, 3.0, 3)]))


def test_lookup_composes_up_and_down_the_tree(rng: np.random.Generator) -> None:
    tree = TransformTree()
    T_base_mast, T_mast_cam, T_base_laser = (random_pose(rng) for _ in range(3))
    tree.set("base", "mast", T_base_mast, None)
    tree.set("mast", "cam", T_mast_cam, None)
    tree.set("base", "laser", T_base_laser, None)
    found = tree.lookup("laser", "cam")
    expected = T_base_laser.inverse() @ T_base_mast @ T_mast_cam
    # Products of a few well-scaled doubles: rounding only.
    np.testing.assert_allclose(found.matrix(), expected.matrix(), atol=1e-12)
    back = tree.lookup("cam", "laser")
    np.testing.assert_allclose((found @ back).matrix(), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(tree.lookup("cam", "cam").matrix(), np.eye(4))


def test_moving_edges_are_interpolated_and_never_extrapolated(rng: np.random.Generator) -> None:
    tree = TransformTree()
    first = random_pose(rng)
    second = first @ SE3.exp([0.1, 0.2, -0.1, 0.05, 0.1, -0.02])
    tree.set("odom", "base", first, 1000 * MS)
    tree.set("odom", "base", second, 1100 * MS)
    np.testing.assert_allclose(tree.lookup("odom", "base", 1000 * MS).matrix(), first.matrix())
    half = tree.lookup("odom", "base", 1050 * MS)
    np.testing.assert_allclose(half.matrix(), interpolate(first, second, 0.5).matrix(), atol=1e-12)
    for stamp in (999 * MS, 1101 * MS):
        with pytest.raises(TransformError, match="not known as"):
            tree.lookup("odom", "base", stamp)
    with pytest.raises(TransformError, match="moves"):
        tree.lookup("odom", "base")


def test_unconnected_frames_are_an_error_that_names_what_is_known() -> None:
    tree = TransformTree()
    with pytest.raises(TransformError, match="known frames: none"):
        tree.lookup("base", "cam")
    tree.set("base", "laser", SE3.identity(), None)
    with pytest.raises(TransformError, match=r"'base' and 'cam'.*base, laser"):
        tree.lookup("base", "cam")


def test_a_loop_in_the_tree_ends() -> None:
    tree = TransformTree()
    tree.set("a", "b", SE3.identity(), None)
    tree.set("b", "a", SE3.identity(), None)
    tree.lookup("a", "b")
    with pytest.raises(TransformError):
        tree.lookup("a", "c")


def test_history_is_bounded_and_restarts_when_time_goes_back() -> None:
    tree = TransformTree(history_s=1.0)
    for index in range(1000):
        tree.set("odom", "base", SE3.identity(), index * 10 * MS)
    assert len(tree._edges["base"].stamps_ns) <= 101
    tree.set("odom", "base", SE3.identity(), 5 * MS)
    assert tree._edges["base"].stamps_ns == [5 * MS]


@settings(max_examples=50)
@given(st.permutations(list(range(12))))
def test_history_is_sorted_whatever_the_order_of_arrival(order: list[int]) -> None:
    tree = TransformTree()
    for index in order:
        tree.set("odom", "base", SE3(np.eye(3), np.array([float(index), 0.0, 0.0])), index * 10 * MS)
    for index in range(12):
        assert tree.lookup("odom", "base", index * 10 * MS).t[0] == index


def test_nothing_lies_between_before_and_after_a_jump() -> None:
    tree = TransformTree()
    for index in range(5):
        tree.set("odom", "base", SE3(np.eye(3), np.array([3.0 + 0.01 * index, 0.0, 0.0])), index * 20 * MS)
    tree.set("odom", "base", SE3.identity(), 100 * MS)  # somebody has reset the odometry
    tree.set("odom", "base", SE3.identity(), 120 * MS)
    with pytest.raises(TransformError, match="not known as early"):
        tree.lookup("odom", "base", 90 * MS)
    assert tree.lookup("odom", "base", 110 * MS).distance_to(SE3.identity()) == 0.0


def test_the_latest_stamp_is_that_of_the_edge_that_lags() -> None:
    tree = TransformTree()
    tree.set("base", "camera", SE3.identity(), None)
    assert tree.latest("base", "camera") is None
    for stamp in (100, 200, 300):
        tree.set("odom", "base", SE3.identity(), stamp * MS)
    tree.set("world", "odom", SE3.identity(), 150 * MS)
    assert tree.latest("odom", "camera") == 300 * MS
    assert tree.latest("world", "camera") == 150 * MS
    with pytest.raises(TransformError, match="no transform connects"):
        tree.latest("map", "camera")
