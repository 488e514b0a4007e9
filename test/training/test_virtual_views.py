"""Moved views against what the simulator renders there."""

from __future__ import annotations

import numpy as np

from localizer_ros.core.config.schema import config_from_dict
from localizer_ros.core.se3 import SE3
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig
from localizer_ros.training.data import load_posed_images
from localizer_ros.training.virtual_views import SceneDepth, VirtualViews


def test_a_moved_view_shows_what_a_moved_camera_sees() -> None:
    """Frames of a drive, moved to the pose of a later one by the simulator's depth, against what was seen there."""
    source = SimulatedSource(
        config_from_dict(
            WorldConfig,
            {
                "duration_s": 8.0,
                "fps": 2.0,
                "noise": 0.0,
                "exposure_ms": 0.0,
                "moving_objects": 0,
                "width_px": 256,
            },
        )
    )
    data = load_posed_images(source, source.camera)
    rendered = [source.render(index)[1] for index in range(len(data))]
    depth = SceneDepth(
        np.stack([q[::4, ::4] for q in rendered]).astype(np.float16), source.camera.K, SE3.identity(), 3.0
    )
    views = VirtualViews(data.images, data.poses, source.camera, depth)
    steps = [(i, data.poses[i].inverse() @ data.poses[i + 1]) for i in range(len(data) - 1)]
    moving = [(i, T) for i, T in steps if 0.15 < np.linalg.norm(T.t) < 0.5]
    assert len(moving) >= 5
    ratios, depth_errors = [], []
    for before, T_prev_cur in moving:
        after = before + 1
        moved, T_map_new, inverse_depth = views.view(before, T_prev_cur.R, T_prev_cur.t)
        turned, _, _ = views.view(before, T_prev_cur.R, np.zeros(3))
        assert T_map_new.distance_to(data.poses[after]) < 1e-9
        # Depth of the new view, against what the simulator renders there.
        known = inverse_depth > 0
        ratio = (inverse_depth / rendered[after][4::8, 4::8])[known]
        depth_errors.append(float(np.median(np.abs(np.log(ratio)))))
        seen = data.images[after].astype(int)
        inside = (moved.sum(2) > 0) & (turned.sum(2) > 0)
        error_moved, error_turned = (np.abs(v - seen)[inside].mean() for v in (moved, turned))
        ratios.append(error_moved / error_turned)
    # Hard edges of near boxes are not where a coarse depth puts them, so not every pair gains as much.
    assert np.median(ratios) < 0.7
    assert np.median(depth_errors) < 0.02
