"""Poses from images alone, and their alignment."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.mapping import LocalFeatureConfig, RetrievalConfig, StructureConfig
from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.derived import SourceWithPoses
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.mapping.reconstruction import aligned, reconstruct


class Part:
    """Some frames of a recording."""

    def __init__(self, whole: FrameSource, keep: list[int]) -> None:
        self.whole, self.keep = whole, keep
        self.path, self.format, self.camera = whole.path, whole.format, whole.camera
        self.ground_truth, self.odometry, self.T_base_cam, self.splits = whole.ground_truth, None, None, ()
        self.stamps = whole.stamps
        self.records = [whole.records[i] for i in keep]

    def read(self, index: int) -> Frame:
        return self.whole.read(self.keep[index])

    def split(self, name: str) -> FrameSource:
        raise NotImplementedError


@pytest.mark.parametrize("straight", [False, True])
def test_alignment_undoes_a_similarity(rng: np.random.Generator, straight: bool) -> None:
    poses = []
    for i in range(20):
        t = np.array([0.1 * i, 0.0, 0.0]) if straight else rng.normal(size=3)
        poses.append(SE3(SE3.exp(np.concatenate([rng.normal(0, 0.5, 3), np.zeros(3)])).R, t))
    S = SE3.exp([0.4, -1.0, 0.7, 3.0, -2.0, 1.0])
    reference = [SE3(S.R @ T.R, 2.5 * S.R @ T.t + S.t) for T in poses]
    both = list(range(0, 20, 2))
    carried, rms = aligned(poses, both, [reference[n] for n in both])
    assert rms < 1e-9
    for T, expected in zip(carried, reference, strict=True):
        assert T.distance_to(expected) < 1e-9
        assert T.angle_to(expected) < 1e-9


def test_a_street_is_reconstructed_and_can_be_mapped(shared_dir: Path, tmp_path: Path) -> None:
    source = Part(open_source(shared_dir / "data" / "kitti_00"), list(range(12)))
    config = StructureConfig(
        features=LocalFeatureConfig(max_keypoints=1000), retrieval=RetrievalConfig(words=16, dimensions=0)
    )
    reference = {r.name: r.T_map_cam for r in source.records if r.T_map_cam is not None}
    found = reconstruct(source, config, tmp_path, tmp_path / "work", reference=reference)
    assert len(found.names) >= 11
    assert found.aligned_by == "ground truth"
    length = sum(
        a.distance_to(b) for a, b in zip(list(reference.values()), list(reference.values())[1:], strict=False)
    )
    assert found.alignment_rms_m is not None and found.alignment_rms_m < 0.02 * length
    worst = max(T.angle_to(reference[n]) for n, T in zip(found.names, found.T_map_cam, strict=True))
    assert np.degrees(worst) < 2.0
    posed = SourceWithPoses(source, found.trajectory, "structure from motion")
    assert [r.name for r in posed.records] == list(found.names)
    assert posed.read(0).name == source.read(source.records.index(source.records[0])).name
    assert all(posed.records[i].T_map_cam is found.T_map_cam[i] for i in range(len(posed.records)))


def test_too_few_images_are_an_error(shared_dir: Path, tmp_path: Path) -> None:
    whole = open_source(shared_dir / "data" / "kitti_00")
    with pytest.raises(SourceError, match="expected at least 3"):
        reconstruct(Part(whole, [0, 1]), StructureConfig(), tmp_path, tmp_path / "work")
