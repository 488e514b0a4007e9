"""Recordings that the tests of several readers start from."""

from __future__ import annotations

import numpy as np
import pytest
from bag_recorder import Recorder
from small_recordings import CAMERA, picture, random_pose

from localizer_ros.datasets.calibration import write_camera_yaml
from localizer_ros.datasets.convert import write_bag
from localizer_ros.datasets.images import encode_png
from localizer_ros.datasets.simulated import SimulatedSource, WorldConfig


@pytest.fixture
def seven_scenes(tmp_path, rng):
    """Three sequences of four frames; frame 2 of the second has lost track. Returns (folder, poses)."""
    root = tmp_path / "kitchen"
    poses = {}
    for sequence in (1, 2, 10):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir(parents=True)
        for frame in range(4):
            T = random_pose(rng)
            # As in the originals, rotations are slightly off.
            matrix = T.matrix() + np.pad(1e-3 * rng.standard_normal((3, 3)), (0, 1))
            poses[f"seq-{sequence:02d}/frame-{frame:06d}.color.png"] = T
            np.savetxt(folder / f"frame-{frame:06d}.pose.txt", matrix)
            (folder / f"frame-{frame:06d}.color.png").write_bytes(encode_png(picture(10 * sequence + frame)))
    (root / "TrainSplit.txt").write_text("sequence1\nseq-10\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    write_camera_yaml(root / "camera.yaml", CAMERA)
    return root, poses


@pytest.fixture(scope="session")
def world():
    """A drive of twelve small frames through a simulated room."""
    return SimulatedSource(
        WorldConfig(width_px=96, height_px=72, duration_s=1.2, fps=10.0, moving_objects=1, seed=3)
    )


@pytest.fixture(scope="session")
def bag(world, tmp_path_factory):
    """``world`` as a bag. Read-only."""
    out = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(world, out)
    return out


@pytest.fixture
def recorder(tmp_path):
    """A bag to record messages into."""
    return Recorder(tmp_path / "bag")
