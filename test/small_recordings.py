"""What small recordings are made of: pictures, poses, a camera, files; for the tests of all readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Camera, Frame
from localizer_ros.datasets.source import FrameRecord, FrameSource

CAMERA = Camera(
    64,
    48,
    np.array([[50.0, 0.0, 31.0], [0.0, 51.0, 24.5], [0.0, 0.0, 1.0]]),
    np.array([0.1, -0.05, 0.001, 0.002, 0.01]),
)


def random_pose(rng: np.random.Generator) -> SE3:
    """A pose within two metres and two radians."""
    return SE3.exp(rng.uniform(-2.0, 2.0, 6))


def picture(number: int, shape: tuple[int, ...] = (48, 64, 3)) -> NDArray[np.uint8]:
    """An image of noise, the same for the same number."""
    return np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)


def assert_pose(T: SE3 | None, expected: SE3, atol: float = 1e-9) -> None:
    """The pose is known and is the expected one."""
    assert T is not None
    np.testing.assert_allclose(T.matrix(), expected.matrix(), atol=atol)


def write(path: Path, content: str | bytes) -> None:
    """Write a file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


class Changed:
    """A recording with other records, images or camera; a ``FrameSource``."""

    def __init__(
        self,
        source: FrameSource,
        records: Sequence[FrameRecord] | None = None,
        image: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda pixels: pixels,
        camera: Camera | None = None,
    ) -> None:
        self.path, self.format, self.ground_truth = source.path, source.format, source.ground_truth
        self.stamps, self.splits = source.stamps, source.splits
        self.odometry, self.T_base_cam = source.odometry, source.T_base_cam
        self.records = source.records if records is None else records
        self.camera = camera or source.camera
        self._position = {record.name: index for index, record in enumerate(source.records)}
        self._source, self._image = source, image

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``."""
        frame = self._source.read(self._position[self.records[index].name])
        return Frame(frame.stamp_ns, self._image(frame.image), self.camera, frame.name)

    def split(self, name: str) -> FrameSource:
        """It has no parts."""
        raise NotImplementedError
