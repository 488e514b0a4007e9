"""A map without some of its keyframes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from localizer_ros.scene.hidden_views import without_keyframes
from localizer_ros.scene.map_scene import MapScene


def test_hidden_keyframes_leave_nothing_behind(tiny_map: Path) -> None:
    scene = MapScene.open(tiny_map)
    hidden = np.arange(len(scene.point_map.names)) % 3 == 0
    left = without_keyframes(scene, hidden)
    m, whole = left.point_map, scene.point_map
    assert m.names == tuple(name for name, hide in zip(whole.names, hidden, strict=True) if not hide)
    assert len(m.T_map_refined) == len(m.T_map_cam) == len(m.names)
    assert len(m.points) < len(whole.points) and np.all(np.isfinite(m.points))
    assert np.all(np.bincount(m.observation_point, minlength=len(m.points)) >= 2)
    # Each observation is one of the whole map, of the same keyframe.
    for image in range(len(m.names)):
        number = whole.names.index(m.names[image])
        theirs = whole.observation_xy_px[whole.observation_image == number]
        assert np.isin(m.observation_xy_px[m.observation_image == image], theirs).all()
    # Every keyframe that is left is found, under its new number.
    assert sorted(left.database.keyframe) == list(range(len(m.names)))
    assert [left.database.names[row] for row in np.argsort(left.database.keyframe)] == list(m.names)


def test_points_that_lose_views_lie_where_the_others_see_them(tiny_map: Path) -> None:
    scene = MapScene.open(tiny_map)
    whole = scene.point_map
    none = without_keyframes(scene, np.zeros(len(whole.names), dtype=bool)).point_map
    assert np.array_equal(none.points, whole.points)
    spoiled = replace(whole, points=whole.points + np.float32(1.0))
    hidden = np.arange(len(whole.names)) == 0
    m = without_keyframes(replace(scene, point_map=spoiled), hidden).point_map
    lost = np.isin(np.arange(len(whole.points)), whole.observation_point[whole.observation_image == 0])
    # Only those are triangulated anew.
    assert np.count_nonzero(np.isin(m.points, spoiled.points).all(axis=1)) >= np.count_nonzero(~lost)
    assert np.count_nonzero(~np.isin(m.points, spoiled.points).all(axis=1)) > 0
