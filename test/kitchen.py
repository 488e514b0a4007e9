"""A slice of a real recording (7-Scenes Red Kitchen) and its map: 40 frames, with a gap of 20 that are looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from localizer_ros.core.config.mapping import KeyframeConfig, LocalFeatureConfig, StructureConfig
from localizer_ros.core.types import Frame, PoseEstimate
from localizer_ros.datasets.source import FrameSource, open_source
from localizer_ros.mapping.build_point_map import PointMapReport, build_point_map

CONFIG = StructureConfig(
    features=LocalFeatureConfig(max_keypoints=1200),
    keyframes=KeyframeConfig(max_images=20, neighbours=8),
)


class Part:
    """Some frames of a recording; a ``FrameSource``."""

    def __init__(self, whole: FrameSource, keep: list[int]) -> None:
        self.whole, self.keep = whole, keep
        self.path, self.format, self.camera = whole.path, whole.format, whole.camera
        self.ground_truth, self.odometry, self.T_base_cam, self.splits = whole.ground_truth, None, None, ()
        self.stamps = whole.stamps
        self.records = [whole.records[i] for i in keep]

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        return self.whole.read(self.keep[index])

    def split(self, name: str) -> FrameSource:
        """It has no parts."""
        raise NotImplementedError


@dataclass
class Kitchen:
    """The slice.

    Attributes:
        scene: the map of ``source``.
        work: what mapping has left to go on from.
        source: the frames mapped.
        queries: the 20 frames between them.
        report: of the mapping.
    """

    scene: Path
    work: Path
    source: Part
    queries: Part
    report: PointMapReport

    def errors(self, index: int, answer: PoseEstimate) -> tuple[float, float]:
        """Metres and degrees of an answer to a query."""
        given = self.queries.records[index].T_map_cam
        assert given is not None
        return given.distance_to(answer.T_map_cam), float(np.degrees(given.angle_to(answer.T_map_cam)))

    def prior(self, index: int, sigma: float = 0.2) -> PoseEstimate | None:
        """A vague prior for a query but the first, as once the localizer has believed an answer."""
        record = self.queries.records[index]
        if index == 0 or record.T_map_cam is None:
            return None
        return PoseEstimate(record.stamp_ns, record.T_map_cam, sigma**2 * np.eye(6), "prediction")


def map_kitchen(shared_dir: Path, make_folder: Callable[[str], Path]) -> Kitchen:
    """Map the slice; takes some seconds."""
    whole = open_source(shared_dir / "data" / "redkitchen").split("train")
    inside = [i for i, r in enumerate(whole.records) if r.sequence == "seq-01"]
    source = Part(whole, inside[0:40:2] + inside[60:100:2])
    folder = make_folder("kitchen")
    report = build_point_map(source, CONFIG, folder / "scene", folder / "work")
    return Kitchen(folder / "scene", folder / "work", source, Part(whole, inside[40:60]), report)
