"""Poses from images alone."""

from pathlib import Path

import numpy as np
import pytest

from localizer_ros.core.config.mapping import LocalFeatureConfig, RetrievalConfig, StructureConfig
from localizer_ros.core.progress import no_progress
from localizer_ros.core.types import Frame, SourceError
from localizer_ros.datasets.derived import SourceWithPoses
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.mapping.alignment import Reference, aligned
from localizer_ros.mapping.reconstruction import reconstruct
from localizer_ros.mapping.view_change import changed_frames


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


@pytest.mark.slow
def test_a_street_is_reconstructed_and_can_be_mapped(shared_dir: Path, tmp_path: Path) -> None:
    source = Part(open_source(shared_dir / "data" / "kitti_00"), list(range(12)))
    config = StructureConfig(
        features=LocalFeatureConfig(max_keypoints=1000), retrieval=RetrievalConfig(words=16, dimensions=0)
    )
    reference = {r.name: r.T_map_cam for r in source.records if r.T_map_cam is not None}
    own = reconstruct(source, config, tmp_path, tmp_path / "work")
    assert own.aligned_by == ""
    found, rms_m = aligned(own, Reference(reference, "ground truth"))
    # Every keyframe has a pose, and they reach from one end of the drive to the other.
    keyframes = changed_frames(source, no_progress)
    assert list(found.names) == [source.records[i].name for i in keyframes]
    assert keyframes[0] == 0 and keyframes[-1] >= 10 and np.diff(keyframes).max() <= 3
    assert found.aligned_by == "ground truth"
    length = sum(
        a.distance_to(b) for a, b in zip(list(reference.values()), list(reference.values())[1:], strict=False)
    )
    assert rms_m < 0.02 * length
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
